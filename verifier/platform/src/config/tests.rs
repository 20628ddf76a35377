use super::*;

#[derive(Debug, Deserialize)]
struct Document {
    platform: Vec<PlatformConfig>,
}

fn read(text: &str) -> Result<Issuer, String> {
    let document: Document =
        toml::from_str(&format!("[[platform]]\n{text}")).map_err(|error| error.to_string())?;
    let [config] = <[_; 1]>::try_from(document.platform).expect("one");
    Issuer::try_from(config).map_err(|problem| problem.key.to_owned())
}

#[test]
fn public_services_need_an_audience_only() {
    for (system, issuer, url) in [
        (
            "github",
            "https://token.actions.githubusercontent.com",
            "https://token.actions.githubusercontent.com/.well-known/jwks",
        ),
        ("gitlab", "https://gitlab.com", "https://gitlab.com/oauth/discovery/keys"),
        (
            "buildkite",
            "https://agent.buildkite.com",
            "https://agent.buildkite.com/.well-known/jwks",
        ),
    ] {
        let read = read(&format!("system = \"{system}\"\naudience = \"assay\"")).expect(system);
        assert_eq!(read.system().as_str(), system);
        assert_eq!((read.issuer(), read.audience()), (issuer, "assay"));
        let url = url.parse().expect("a URL");
        assert_eq!(*read.key_source(), KeySource::Https { url, ca_file: None });
        assert_eq!(read.refresh(), DEFAULT_REFRESH);
        assert_eq!(read.max_age(), DEFAULT_MAX_AGE);
        assert_eq!(read.max_lifetime_s(), 3600);
        assert_eq!(read.algorithms(), [Algorithm::Rs256]);
    }
}

#[test]
fn everything_can_be_said() {
    let found = read(
        r#"
        system = "gitlab"
        issuer = "https://gitlab.example.org"
        audience = "assay"
        jwks_url = "https://gitlab.example.org:8443/oauth/discovery/keys"
        ca_file = "/etc/assay/ca.pem"
        refresh = "15m"
        max_age = "2d"
        max_lifetime = "90s"
        algorithms = ["ES256", "RS256"]
        "#,
    )
    .expect("an issuer");
    assert_eq!(found.issuer(), "https://gitlab.example.org");
    let url = "https://gitlab.example.org:8443/oauth/discovery/keys".parse().expect("a URL");
    let ca_file = Some("/etc/assay/ca.pem".into());
    assert_eq!(*found.key_source(), KeySource::Https { url, ca_file });
    assert_eq!(found.refresh().as_secs(), 900);
    assert_eq!(found.max_age().as_secs(), 172_800);
    assert_eq!(found.max_lifetime_s(), 90);
    assert_eq!(found.algorithms(), [Algorithm::Es256, Algorithm::Rs256]);
    let file = read("system = \"github\"\naudience = \"a\"\njwks_file = \"/k\"").expect("a file");
    assert_eq!(*file.key_source(), KeySource::File("/k".into()));
}

#[test]
fn each_mistake_names_its_key() {
    let good = "system = \"github\"\naudience = \"a\"\n";
    let long = "a".repeat(MAX_NAME_BYTES + 1);
    for (extra, key) in [
        ("issuer = \"http://a.example\"", "issuer"),
        ("issuer = \"\"", "issuer"),
        (&format!("issuer = \"https://{long}\""), "issuer"),
        ("issuer = \"https://a.example\"", "jwks_url"),
        ("jwks_url = \"http://a.example/k\"", "jwks_url"),
        ("jwks_url = \"https://a.example/k\"\njwks_file = \"/k\"", "jwks_url"),
        ("jwks_file = \"/k\"\nca_file = \"/c\"", "ca_file"),
        ("refresh = \"59s\"", "refresh"),
        ("refresh = \"25h\"", "refresh"),
        ("refresh = \"1\"", "refresh"),
        ("refresh = \"h\"", "refresh"),
        ("refresh = \"\"", "refresh"),
        ("refresh = \"+1h\"", "refresh"),
        ("refresh = \"1é\"", "refresh"),
        ("refresh = \"99999999999999999999d\"", "refresh"),
        ("max_age = \"59m\"", "max_age"),
        ("max_age = \"31d\"", "max_age"),
        ("max_lifetime = \"59s\"", "max_lifetime"),
        ("max_lifetime = \"2d\"", "max_lifetime"),
        ("algorithms = []", "algorithms"),
        ("algorithms = [\"none\"]", "algorithms"),
        ("algorithms = [\"HS256\"]", "algorithms"),
        ("algorithms = [\"RS256\", \"RS256\"]", "algorithms"),
    ] {
        assert_eq!(read(&format!("{good}{extra}")).expect_err(extra), key, "{extra}");
    }
    read(good).expect("the control");
    let audience = |text: &str| read(&format!("system = \"github\"\naudience = \"{text}\""));
    assert_eq!(audience("").expect_err("empty"), "audience");
    assert_eq!(audience("a\\nb").expect_err("a control"), "audience");
    assert_eq!(audience(&long).expect_err("too long"), "audience");
    for system in ["jenkins", "tekton", "generic"] {
        let error = read(&format!("system = \"{system}\"\naudience = \"a\"")).expect_err(system);
        assert_eq!(error, "system");
    }
    let error = read(&format!("{good}verify_signature = false")).expect_err("unknown");
    assert!(error.contains("unknown field `verify_signature`"), "{error}");
    assert!(read("system = \"github\"").expect_err("no audience").contains("audience"));
}
