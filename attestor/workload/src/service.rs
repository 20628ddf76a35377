//! The five calls of the Workload API.

use std::{collections::BTreeMap, sync::Arc};

use prost_types::{Struct, Value as ProtoValue, value::Kind};
use proto::{permit::check_audiences, spiffe::SpiffeId};
use serde_json::Value;
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use crate::{
    identity::{JwtRefusal, JwtRequest},
    jwt_answer,
    limits::Limits,
    pb::{
        JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
        ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse,
        X509svid, X509svidRequest, X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
    },
    peer::Peer,
    refusal::{Refusal, RefusalCode},
    registry::{Job, Live, Registry, State, TOKEN_BURST, TOKENS_PER_S},
    stream::JobStream,
    validation::{JwtToValidate, JwtValidator},
};

/// The service; one for all connections.
pub(crate) struct Service {
    pub(crate) registry: Registry,
    pub(crate) validator: Arc<dyn JwtValidator>,
    pub(crate) limits: Limits,
    pub(crate) stopping: watch::Receiver<bool>,
}

#[async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = JobStream<X509svidResponse>;
    type FetchX509BundlesStream = JobStream<X509BundlesResponse>;
    type FetchJWTBundlesStream = JobStream<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(&request, x509_svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(&request, x509_bundles)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let peer = peer(&request)?;
        let JwtsvidRequest { audience: audiences, spiffe_id } = request.into_inner();
        Self::check_audiences(&audiences)?;
        let spiffe_id =
            match spiffe_id.as_str() {
                "" => None,
                text => Some(text.parse::<SpiffeId>().map_err(|error| {
                    Refusal::new(RefusalCode::SpiffeIdInvalid, error.to_string())
                })?),
            };
        let job = self.registry.resolve(&peer)?;
        let svids = self.fetch_tokens(&peer, &job, audiences, spiffe_id).await?;
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.stream(&request, jwt_bundles)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let peer = peer(&request)?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        Self::check_audiences(std::slice::from_ref(&audience))?;
        if svid.is_empty() {
            return Err(Refusal::new(RefusalCode::TokenInvalid, "there is no token").into());
        }
        if svid.len() > self.limits.token_bytes {
            let what = format!("the token is longer than {} bytes", self.limits.token_bytes);
            return Err(Refusal::new(RefusalCode::TokenTooLong, what).into());
        }
        let job = self.registry.resolve(&peer)?;
        let live = job.live()?;
        let valid = self.validator.validate(&JwtToValidate {
            job: &job.id,
            untrusted_token: &svid,
            audience: &audience,
            bundles: &live.credentials.bundles,
            now_unix_s: self.registry.now_unix_s(),
        });
        let valid = valid
            .map_err(|rejection| Refusal::new(RefusalCode::TokenInvalid, rejection.to_string()))?;
        let fields = valid.claims.into_iter().map(|(name, value)| (name, to_proto(value)));
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: valid.spiffe_id.to_string(),
            claims: Some(Struct { fields: fields.collect::<BTreeMap<_, _>>() }),
        }))
    }
}

impl Service {
    fn stream<R, M: Send + 'static>(
        &self,
        request: &Request<R>,
        build: crate::stream::Build<M>,
    ) -> Result<Response<JobStream<M>>, Status> {
        let peer = peer(request)?;
        let (registry, stopping) = (self.registry.clone(), self.stopping.clone());
        Ok(Response::new(JobStream::begin(registry, peer, stopping, build)?))
    }

    fn check_audiences(audiences: &[String]) -> Result<(), Refusal> {
        let invalid = |what: String| Refusal::new(RefusalCode::AudienceInvalid, what);
        if audiences.is_empty() {
            return Err(invalid("a request names its audience".to_owned()));
        }
        check_audiences(audiences).map_err(|error| invalid(error.to_string()))
    }

    /// Asks the job's issuer, and hands over only what is for this job, which is still there.
    async fn fetch_tokens(
        &self,
        peer: &Peer,
        job: &Arc<Job>,
        audiences: Vec<String>,
        spiffe_id: Option<SpiffeId>,
    ) -> Result<Vec<Jwtsvid>, Refusal> {
        let live = job.live()?;
        let grant = live.credentials.jwt.as_ref().ok_or_else(|| {
            Refusal::new(RefusalCode::IdentityNone, format!("job {} gets no JWT-SVIDs", job.id))
        })?;
        if let Some(id) = &spiffe_id
            && !grant.spiffe_ids.contains(id)
        {
            let what = format!("{id} is not an identity of job {}", job.id);
            return Err(Refusal::new(RefusalCode::IdentityNotGranted, what));
        }
        if !job.may_ask_for_tokens() {
            let what = format!(
                "job {} asked for tokens too often: {TOKEN_BURST} at once, and {TOKENS_PER_S} a second; try again",
                job.id
            );
            return Err(Refusal::new(RefusalCode::JwtTooMany, what));
        }
        let request = JwtRequest { job: job.id.clone(), audiences, spiffe_id };
        let mut state = job.watch();
        let fetch = async {
            // Never closed: there is always a turn to wait for.
            let _turn = job.token_turns.acquire().await;
            grant.source.fetch(request.clone()).await
        };
        let answer = tokio::select! {
            answer = fetch => answer,
            _ = state.wait_for(|state| matches!(state, State::Ended(_))) => Ok(Vec::new()),
        };
        // The permit may have ended while the issuer thought.
        job.live()?;
        if !Arc::ptr_eq(&self.registry.resolve(peer)?, job) {
            let what = format!("the process is no longer one of job {}", job.id);
            return Err(Refusal::new(RefusalCode::JobChanged, what));
        }
        let tokens = answer.map_err(|refusal| match refusal {
            JwtRefusal::Denied(what) => Refusal::new(RefusalCode::JwtRefused, what),
            JwtRefusal::Unavailable(what) => Refusal::new(RefusalCode::JwtUnavailable, what),
        })?;
        jwt_answer::check(&tokens, &request, &grant.spiffe_ids).map_err(|what| {
            tracing::error!(job = %job.id, what, "the issuer of JWT-SVIDs is at fault");
            Refusal::new(RefusalCode::JwtSourceFaulty, what)
        })?;
        let to_message = |token: crate::identity::JwtSvid| Jwtsvid {
            spiffe_id: token.spiffe_id.to_string(),
            svid: token.token,
            hint: token.hint,
        };
        Ok(tokens.into_iter().map(to_message).collect())
    }
}

/// The peer that the connection put into the request.
fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Refusal> {
    let peer = request.extensions().get::<Arc<Peer>>();
    peer.cloned().ok_or_else(|| Refusal::new(RefusalCode::PeerUnreadable, "no peer is known"))
}

fn x509_svids(live: &Live, now_unix_s: u64) -> Result<X509svidResponse, Refusal> {
    let credentials = &live.credentials;
    if credentials.x509.is_empty() {
        return Err(Refusal::new(RefusalCode::IdentityNone, "the job has no X.509-SVID"));
    }
    live.check_current(now_unix_s)?;
    let svids = credentials.x509.iter().map(|svid| X509svid {
        spiffe_id: svid.spiffe_id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key_pkcs8.to_vec(),
        bundle: credentials
            .bundles
            .get(svid.spiffe_id.trust_domain())
            .map(|bundle| bundle.x509_authorities().concat())
            .unwrap_or_default(),
        hint: svid.hint.clone(),
    });
    Ok(X509svidResponse { svids: svids.collect(), ..X509svidResponse::default() })
}

fn x509_bundles(live: &Live, _now_unix_s: u64) -> Result<X509BundlesResponse, Refusal> {
    let bundles = live.credentials.bundles.iter();
    let bundles = bundles.map(|(domain, bundle)| (domain.id(), bundle.x509_authorities().concat()));
    Ok(X509BundlesResponse { crl: Vec::new(), bundles: bundles.collect() })
}

fn jwt_bundles(live: &Live, _now_unix_s: u64) -> Result<JwtBundlesResponse, Refusal> {
    let bundles = live.credentials.bundles.iter();
    let bundles = bundles
        .map(|(domain, bundle)| (domain.id(), bundle.jwt_authorities().to_json().into_bytes()));
    Ok(JwtBundlesResponse { bundles: bundles.collect() })
}

/// JSON as `google.protobuf.Struct` has it: all numbers are doubles.
fn to_proto(value: Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.into_iter().map(to_proto).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, to_proto(value))).collect(),
        }),
    };
    ProtoValue { kind: Some(kind) }
}
