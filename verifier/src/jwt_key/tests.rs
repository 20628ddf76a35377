use std::{mem, os::unix::fs::PermissionsExt as _, time::Duration};

use jose::{jwk::JwkSet, spiffe_bundle::Bundle};
use proto::spiffe::SpiffeId;
use tempfile::TempDir;

use super::*;
use crate::clock::FixedClock;

const NOW: i64 = 1_900_000_000;
const LEAD: Duration = Duration::from_secs(900);
const LEAD_S: i64 = 900;

/// A verifier's keys on a clock of the test's.
struct Site {
    folder: TempDir,
    clock: FixedClock,
    keys: Arc<JwtKeys>,
}

impl Site {
    fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().expect("folder"), FixedClock::at(NOW));
        let keys = opened(folder.path(), &clock).expect("made");
        Self { folder, clock, keys: Arc::new(keys) }
    }

    /// As a verifier that was killed starts again.
    fn restart(&mut self) {
        self.keys = Arc::new(opened(self.folder.path(), &self.clock).expect("opened"));
    }

    fn only(&mut self) -> &mut JwtKeys {
        Arc::get_mut(&mut self.keys).expect("nobody else has them")
    }

    fn at(&self, since: i64) {
        self.clock.set(NOW + since);
        self.tick();
    }

    fn tick(&self) {
        if self.keys.in_force.load().is_due(self.clock.now_unix_s()) {
            self.keys.take_over().expect("moved on");
        }
    }

    fn rotate(&self, at_once: bool) -> Result<JwtRotation, JwtKeyError> {
        rotate(self.folder.path(), self.clock.now_unix_s(), at_once)
    }

    fn signs(&self) -> String {
        self.keys.in_force.load().signing_id().to_owned()
    }

    fn published(&self) -> Vec<String> {
        let set = JwkSet::parse(&self.keys.jwk_set()).expect("a set");
        let ids: Vec<_> =
            set.keys().iter().map(|key| key.id().expect("named").to_owned()).collect();
        let bundle = self.keys.bundle(Vec::new()).expect("a bundle");
        let bundle = Bundle::parse(bundle.as_bytes()).expect("read back");
        assert_eq!(bundle.jwt_authorities(), &set, "bundle and set agree");
        ids
    }

    fn phases(&self) -> Vec<KeyPhase> {
        list(self.folder.path()).expect("listed").into_iter().map(|key| key.phase).collect()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).expect("read")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(JWT_KEY_FILE)
    }
}

fn opened(state: &Path, clock: &FixedClock) -> Result<JwtKeys, JwtKeyError> {
    JwtKeys::open(state, Arc::new(clock.clone()), LEAD)
}

fn kept_s() -> i64 {
    i64::try_from(KEPT.as_secs()).expect("short")
}

#[test]
fn the_key_stays_and_is_nobody_elses() {
    let mut site = Site::new();
    let first = site.keys.jwk_set();
    site.restart();
    assert_eq!(site.keys.jwk_set(), first);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&site.path()), 0o600);
    site.rotate(false).expect("rotated");
    assert_eq!(mode(&site.path()), 0o600);
    std::fs::set_permissions(site.path(), std::fs::Permissions::from_mode(0o644)).expect("mode");
    let exposed = opened(site.folder.path(), &site.clock).expect_err("others may read it");
    assert!(matches!(exposed, JwtKeyError::File(FileError::Exposed { .. })), "{exposed}");
}

/// Unpublished, published, signing, former, gone: each at its second.
#[test]
fn a_new_key_is_published_before_it_signs_and_the_former_until_its_tokens_ended() {
    let site = Site::new();
    let rotation = site.rotate(false).expect("rotated");
    let (former, new) = (rotation.former.as_str(), rotation.current.as_str());
    assert_eq!(site.signs(), former);
    assert_ne!(former, new);
    assert_eq!(site.published(), [former], "nobody took it over yet");
    assert_eq!(site.phases()[1], KeyPhase::Unpublished);

    site.at(10);
    site.keys.take_over().expect("reloaded");
    let from = NOW + 10 + LEAD_S;
    assert_eq!(site.phases()[1], KeyPhase::Published { signs_from_unix_s: from });
    assert_eq!(
        (site.signs().as_str(), site.published()),
        (former, vec![former.into(), new.into()])
    );
    // Another reload takes no time away and adds none.
    site.clock.set(NOW + 100);
    site.keys.take_over().expect("reloaded");
    site.at(10 + LEAD_S - 1);
    assert_eq!((site.signs().as_str(), site.published().len()), (former, 2));

    site.at(10 + LEAD_S);
    assert_eq!((site.signs().as_str(), site.published()), (new, vec![new.into(), former.into()]));
    let ends_unix_s = from + kept_s();
    assert_eq!(
        site.phases(),
        [KeyPhase::Signing { since_unix_s: Some(from) }, KeyPhase::Former { ends_unix_s }]
    );
    // The private half is in no file any more.
    assert_eq!(site.text().lines().filter(|line| line.len() > 250).count(), 1, "{}", site.text());
    site.clock.set(ends_unix_s - 1);
    assert_eq!(site.published(), [new, former]);
    // By itself, and from the file with the next tick.
    site.clock.set(ends_unix_s);
    assert_eq!((site.published(), site.phases().len()), (vec![new.to_owned()], 2));
    site.tick();
    assert_eq!(site.phases(), [KeyPhase::Signing { since_unix_s: Some(from) }]);
}

/// The lead covers two refreshes by the hint and what workers need; a former key outlives every token of it.
#[test]
fn times_cover_what_they_are_for() {
    assert!(lead(Duration::from_secs(15)) >= Duration::from_secs(2 * REFRESH_HINT_S));
    assert_eq!(lead(Duration::from_secs(3600)), Duration::from_secs(7200));
    assert!(KEPT >= crate::jobs::JWT_LIFETIME + Duration::from_secs(REFRESH_HINT_S));
    assert!(lead(Duration::ZERO) > KEPT, "else former keys pile up");
}

#[test]
fn a_key_that_others_know_leaves_at_once() {
    let site = Site::new();
    site.rotate(false).expect("rotated");
    site.keys.take_over().expect("reloaded");
    site.at(LEAD_S);
    site.rotate(false).expect("rotated again");
    site.keys.take_over().expect("reloaded");
    assert_eq!(site.published().len(), 3, "signing, next, former");
    let rotation = site.rotate(true).expect("rotated at once");
    assert_eq!(rotation.former, site.signs(), "the running verifier knows nothing yet");
    site.keys.take_over().expect("reloaded");
    assert_eq!(
        (site.signs(), site.published()),
        (rotation.current.clone(), vec![rotation.current])
    );
    let since_unix_s = Some(NOW + LEAD_S);
    assert_eq!(site.phases(), [KeyPhase::Signing { since_unix_s }]);
}

#[test]
fn nothing_is_published_by_being_added() {
    let mut keys = Keys::first(NOW).expect("made");
    keys.add().expect("added");
    let names = |keys: &Keys| {
        keys.published(NOW).iter().map(|key| key.id().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(names(&keys), [Some(keys.signing_id().to_owned())]);
    keys.advance(None, LEAD, NOW);
    assert_eq!(names(&keys).len(), 2);
}

#[test]
fn one_rotation_at_a_time() {
    let site = Site::new();
    let rotation = site.rotate(false).expect("rotated");
    let again = site.rotate(false).expect_err("under way");
    assert!(
        matches!(&again, JwtKeyError::UnderWay { id, signs_from_unix_s: None } if *id == rotation.current),
        "{again}"
    );
    site.keys.take_over().expect("reloaded");
    let from = NOW + LEAD_S;
    let again = site.rotate(false).expect_err("under way");
    assert!(
        matches!(&again, JwtKeyError::UnderWay { signs_from_unix_s: Some(at), .. } if *at == from),
        "{again}"
    );
    // A year of rotations, each as early as may be, keeps a handful of keys.
    for turn in 1..20 {
        site.at(turn * LEAD_S);
        assert!(site.published().len() <= 2);
        site.rotate(false).expect("the one before is done");
        site.keys.take_over().expect("reloaded");
        assert!(site.published().len() <= 3);
    }
}

/// A clock that is set back again and again keeps former keys for long: what has no room waits, and says for what.
#[tokio::test]
async fn a_key_that_finds_no_room_among_the_former_ones_says_so() {
    let site = Site::new();
    let day = 86_400;
    let mut now = NOW;
    let mut came = Vec::new();
    for _ in 0..4 {
        came.push(site.rotate(false).expect("the one before is done").current);
        site.keys.take_over().expect("reloaded");
        site.clock.set(now + LEAD_S);
        let moved = site.keys.move_on().await;
        if came.len() < 4 {
            moved.expect("there is room");
            assert_eq!(&site.signs(), came.last().expect("one"));
            now -= day;
            site.clock.set(now);
            continue;
        }
        let first_leaves = now + day + LEAD_S + kept_s();
        let refused = moved.expect_err("no room");
        assert!(
            matches!(&refused, JwtKeyError::NoRoom { id, room_from_unix_s } if *id == came[3] && *room_from_unix_s == first_leaves),
            "{refused}"
        );
        assert_eq!((site.signs(), site.published().len()), (came[2].clone(), 5));
        site.clock.set(first_leaves);
        site.keys.move_on().await.expect("there is room now");
        assert_eq!(site.signs(), came[3]);
    }
}

/// Killed before and after each write: what has signed is published, and what signs was published for the whole lead
/// while a verifier ran.
#[test]
fn a_verifier_that_is_killed_signs_with_no_key_that_was_not_published() {
    let mut site = Site::new();
    let rotation = site.rotate(false).expect("rotated");
    // Not running when the key was added, and away when its time came.
    site.clock.set(NOW + 10 * LEAD_S);
    site.restart();
    assert_eq!((site.signs(), site.published().len()), (rotation.former.clone(), 2));
    let from = NOW + 11 * LEAD_S;
    assert_eq!(site.phases()[1], KeyPhase::Published { signs_from_unix_s: from });
    // Killed between publishing and signing: the lead begins anew, as nobody could fetch the bundle.
    site.clock.set(from - 1);
    site.restart();
    site.at(11 * LEAD_S);
    assert_eq!(site.signs(), rotation.former);
    let before = site.text();
    site.at(12 * LEAD_S - 1);
    assert_eq!((site.signs(), site.published().len()), (rotation.current.clone(), 2));
    // Killed after it signed, with the record lost: what signed since is published, and signs only later.
    let after = site.text();
    std::fs::write(site.path(), before).expect("as it was");
    site.restart();
    assert_eq!((site.signs(), site.published().len()), (rotation.former.clone(), 2));
    // Killed as soon as it was recorded, before anything was signed.
    std::fs::write(site.path(), after).expect("as it was");
    site.restart();
    assert_eq!((site.signs(), site.published().len()), (rotation.current, 2));
}

/// Nothing signs before it was recorded as the key that signs.
#[test]
fn a_disk_that_takes_nothing_leaves_what_was_in_force() {
    let mut site = Site::new();
    let rotation = site.rotate(false).expect("rotated");
    site.keys.take_over().expect("reloaded");
    site.clock.set(NOW + LEAD_S);
    // So long a path that there is room for the file's name and none for the longer one of an unfinished file: root too
    // writes nothing there.
    let state = site.folder.path().to_str().expect("text");
    let rest = 4095 - state.len() - "/jwt.key".len();
    let (most, last) = ("m".repeat(rest / 17 - 1), "l".repeat(rest / 17 + rest % 17 - 1));
    for link in [&most, &last] {
        std::os::unix::fs::symlink(".", site.folder.path().join(link)).expect("linked");
    }
    let long = format!("{state}{}/{last}", format!("/{most}").repeat(16));
    let good = mem::replace(&mut site.only().file, KeyFile::new(Path::new(&long)));
    let full = site.keys.take_over().expect_err("nothing can be written");
    assert!(matches!(full, JwtKeyError::File(FileError::Io { doing: "write", .. })), "{full}");
    assert_eq!((site.signs(), site.published().len()), (rotation.former.clone(), 2));
    site.only().file = good;
    site.tick();
    assert_eq!((site.signs(), site.published().len()), (rotation.current, 2));
}

#[test]
fn a_file_that_is_gone_leaves_what_was_in_force() {
    let site = Site::new();
    let rotation = site.rotate(false).expect("rotated");
    site.keys.take_over().expect("reloaded");
    let (path, away) = (site.path(), site.folder.path().join("away"));
    std::fs::rename(&path, &away).expect("moved");
    // A directory is not replaced by a file.
    std::fs::create_dir(&path).expect("made");
    site.clock.set(NOW + LEAD_S);
    assert!(matches!(site.keys.take_over(), Err(JwtKeyError::File(_))));
    assert_eq!((site.signs(), site.published().len()), (rotation.former, 2));
    std::fs::remove_dir(&path).expect("removed");
    assert!(matches!(site.keys.take_over(), Err(JwtKeyError::Absent { .. })));
    std::fs::rename(&away, &path).expect("moved back");
    site.tick();
    assert_eq!(site.signs(), rotation.current);
}

/// The file of a verifier of before: one word.
#[test]
fn a_file_of_before_is_read_and_rotated() {
    let mut site = Site::new();
    let id = site.signs();
    let text = site.text();
    let der = text.split(' ').nth(1).expect("a key");
    std::fs::write(site.path(), format!("{der}\n")).expect("written");
    site.restart();
    assert_eq!(
        (site.signs(), site.phases()),
        (id.clone(), vec![KeyPhase::Signing { since_unix_s: None }])
    );
    assert_eq!(site.rotate(false).expect("rotated").former, id);
    site.keys.take_over().expect("reloaded");
    site.at(LEAD_S);
    assert_eq!(site.published().len(), 2);
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let site = Site::new();
    site.rotate(false).expect("rotated");
    site.keys.take_over().expect("reloaded");
    site.at(LEAD_S);
    let text = site.text();
    let [signing, former] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let key = signing.split(' ').nth(1).expect("a key");
    let cases = [
        (String::new(), 0, "has no key that signs"),
        (format!("{former}\n"), 0, "has no key that signs"),
        ("nonsense\n".to_owned(), 1, "has no key on P-256"),
        (format!("{signing}\nformer {key} 5\n"), 2, "has no key on P-256"),
        (format!("{signing}\nnext {key}\n"), 0, "has the same key twice"),
        (format!("{signing}\n{signing}\n"), 2, "is one key too many"),
        (format!("{signing}\n{former}\n{former}\n{former}\n{former}\n"), 5, "is one key too many"),
        (format!("{signing}\n{former}\n{former}\n"), 0, "has the same key twice"),
        (format!("signing {key} -1\n"), 1, "its time is no number"),
        (format!("signing {key} 1 2\n"), 1, "has more than"),
        (format!("signed {key} 1\n"), 1, "begins with none"),
        (
            format!("{signing}\n{}\n", &former[..former.rfind(' ').expect("time")]),
            2,
            "not when it ends",
        ),
    ];
    for (bad, at, expected) in cases {
        std::fs::write(site.path(), &bad).expect("written");
        let error = opened(site.folder.path(), &site.clock).expect_err(expected);
        let told = error.to_string();
        assert!(
            matches!(&error, JwtKeyError::Content { line, what, .. } if *line == at && what.contains(expected)),
            "{bad}: {told}"
        );
        assert!(told.contains(JWT_KEY_FILE) && told.contains("move it away"), "{told}");
        // A running verifier keeps what it has, a rotation changes nothing.
        assert!(matches!(site.keys.take_over(), Err(JwtKeyError::Content { .. })));
        assert!(matches!(site.rotate(true), Err(JwtKeyError::Content { .. })));
        assert_eq!(site.published().len(), 2);
    }
}

/// A clock that was set back between rotations leaves former keys with long to go: no more are added to them.
#[test]
fn no_key_leaves_before_its_time_to_make_room() {
    let site = Site::new();
    for turn in 0..=3 {
        site.clock.set(NOW - turn * 10_000);
        site.rotate(false).expect("rotated");
        site.keys.take_over().expect("reloaded");
        site.at(LEAD_S - turn * 10_000);
    }
    let published = site.published();
    assert_eq!(published.len(), 5, "signing, next, three former: {:?}", site.phases());
    assert!(matches!(site.phases()[1], KeyPhase::Published { .. }), "its time came, and it waits");
    // The earliest of the three is the last that was made.
    site.at(LEAD_S - 20_000 + kept_s());
    assert_eq!((site.signs(), site.published().len()), (published[1].clone(), 4));
}

#[test]
fn nothing_is_rotated_before_there_is_a_key() {
    let folder = tempfile::tempdir().expect("folder");
    assert!(matches!(rotate(folder.path(), NOW, false), Err(JwtKeyError::Absent { .. })));
    assert_eq!(list(folder.path()).expect("none"), []);
}

/// A command that was stopped half-way does not stop the verifier for good.
#[test]
fn whoever_holds_the_lock_is_waited_for_and_told_of() {
    let site = Site::new();
    let file = KeyFile::new(site.folder.path());
    let held = file.lock().expect("free");
    let thread = {
        let keys = Arc::clone(&site.keys);
        std::thread::spawn(move || keys.take_over())
    };
    let busy = site.rotate(false).expect_err("held");
    assert!(matches!(busy, JwtKeyError::Busy { .. }), "{busy}");
    drop(held);
    // Whichever way it went, it ended.
    let waited = thread.join().expect("ended");
    assert!(matches!(waited, Ok(()) | Err(JwtKeyError::Busy { .. })), "{waited:?}");
    site.rotate(false).expect("free again");
}

/// What was minted before the change verifies with the keys of after, and the other way round.
#[test]
fn tokens_verify_across_the_change() {
    let site = Site::new();
    let trust_domain = "builds.example".parse().expect("a name");
    let subject: SpiffeId = "spiffe://builds.example/pool/linux".parse().expect("an ID");
    let minted = |now_unix_s| {
        let claims = SvidClaims {
            subject: subject.clone(),
            audiences: vec!["registry".to_owned()],
            issued_unix_s: now_unix_s,
            expires_unix_s: now_unix_s + 300,
            token_id: "one".to_owned(),
        };
        site.keys.mint(&claims).expect("minted")
    };
    let validated = |token: &str, bundle: &str, now_unix_s| {
        let bundle = Bundle::parse(bundle.as_bytes()).expect("a bundle");
        let rules =
            svid::SvidRules { trust_domain: &trust_domain, audience: "registry", leeway_s: 0 };
        svid::validate(token, &bundle, &rules, now_unix_s).map(|svid| svid.key_id().to_owned())
    };
    let bundle = || site.keys.bundle(Vec::new()).expect("a bundle");
    let rotation = site.rotate(false).expect("rotated");
    site.keys.take_over().expect("reloaded");
    // What was fetched once the key was published is good for all that follows.
    let fetched = bundle();
    let change = NOW + LEAD_S;
    site.clock.set(change - 1);
    let last = minted(change - 1);
    site.at(LEAD_S);
    let first = minted(change);
    site.clock.set(change + 298);
    for bundle in [&fetched, &bundle()] {
        assert_eq!(validated(&last, bundle, change + 298).expect("good"), rotation.former);
        assert_eq!(validated(&first, bundle, change + 298).expect("good"), rotation.current);
    }
    site.rotate(true).expect("rotated at once");
    site.keys.take_over().expect("reloaded");
    for token in [&last, &first] {
        let refused = validated(token, &bundle(), change + 298).expect_err("the key is gone");
        assert_eq!(refused.code(), "JWS_KEY_UNKNOWN");
    }
}
