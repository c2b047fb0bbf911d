use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::domain::AgentId;

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn master(text: &str) -> MasterKey {
    MasterKey::load(MasterKeySource::Value(Secret::new(text.to_owned()))).unwrap()
}

fn vault(text: &str) -> Vault {
    Vault::new(&master(text))
}

proptest! {
    #[test]
    fn what_is_sealed_opens_in_its_place_and_nowhere_else(plain: Vec<u8>, flip: prop::sample::Index, bit in 0..8u8) {
        let vault = vault(ONE);
        let (agent, other) = (AgentId::new(), AgentId::new());
        let place = Binding::agent(agent, "token");
        let sealed = vault.seal(&place, &plain);
        prop_assert_eq!(vault.open(&place, &sealed), Ok(Secret::new(plain)));
        for wrong in [
            Binding::agent(agent, "api_key"),
            Binding::agent(other, "token"),
            Binding::named("agent", agent.as_bytes()),
        ] {
            prop_assert_eq!(vault.open(&wrong, &sealed).unwrap_err(), VaultError::Refused { key: vault.active_key() });
        }
        prop_assert!(Sealed::from_bytes(sealed.as_bytes()).is_ok_and(|copy| copy == sealed));
        let mut altered = sealed.as_bytes().to_vec();
        *flip.get_mut(&mut altered) ^= 1u8 << bit;
        let opened = Sealed::from_bytes(&altered).ok().map(|altered| vault.open(&place, &altered).is_ok());
        prop_assert_ne!(opened, Some(true));
    }
}

#[test]
fn parts_of_a_binding_cannot_be_shifted_into_each_other() {
    let vault = vault(ONE);
    let sealed = vault.seal(&Binding::named("ab", b"c"), b"x");
    assert!(vault.open(&Binding::named("a", b"bc"), &sealed).is_err());
}

#[test]
fn no_nonce_comes_twice() {
    let vault = vault(ONE);
    let place = Binding::named("n", b"");
    let nonces: HashSet<_> = (0..10_000).map(|_| vault.seal(&place, b"").nonce()).collect();
    assert_eq!(nonces.len(), 10_000);
}

#[test]
fn a_ring_opens_what_an_older_key_sealed_and_says_that_it_is_outdated() {
    let place = Binding::named("n", b"");
    let old = vault(ONE).seal(&place, b"value");
    let ring = vault(&format!("{TWO}, {ONE}"));
    assert_eq!(ring.open(&place, &old).unwrap().expose(), b"value");
    assert!(ring.is_outdated(&old));
    assert!(!ring.is_outdated(&ring.seal(&place, b"value")));
    let key = vault(ONE).active_key();
    assert_eq!(vault(TWO).open(&place, &old).unwrap_err(), VaultError::UnknownKey { key });
}

#[test]
fn a_key_is_the_same_in_every_notation_and_its_purposes_differ() {
    let base64 = "ERERERERERERERERERERERERERERERERERERERERERE";
    let id = vault(ONE).active_key();
    for text in [base64.to_owned(), format!("{base64}="), format!(" {ONE}\n"), format!("{ONE},{ONE}")] {
        assert_eq!(vault(&text).active_key(), id, "{text}");
    }
    assert_ne!(vault(TWO).active_key(), id);
    assert_ne!(master(ONE).subkey("a").expose(), master(ONE).subkey("b").expose());
    assert_eq!(master(ONE).subkey("a").expose(), master(ONE).subkey("a").expose());
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    for text in ["", ",", "sk-planted", &ONE[1..], &format!("{ONE},sk-planted"), &"é".repeat(32)] {
        let error = MasterKey::load(MasterKeySource::Value(Secret::new(text.to_owned()))).unwrap_err();
        assert!(matches!(error, MasterKeyError::Malformed { .. }), "{text}");
        assert!(!error.to_string().contains("sk-planted"));
    }
}

#[test]
fn a_sealed_value_survives_json_and_shows_only_its_key() {
    let vault = vault(ONE);
    let place = Binding::named("n", b"");
    let sealed = vault.seal(&place, b"sk-planted");
    let json = serde_json::to_string(&sealed).unwrap();
    let back: Sealed = serde_json::from_str(&json).unwrap();
    assert_eq!(back, sealed);
    assert_eq!(format!("{sealed:?}"), format!("[sealed with {}]", vault.active_key()));
    let debug = format!("{vault:?} {:?}", master(ONE));
    assert!(!debug.contains("1111") && !json.contains("planted"), "{debug}");
}

#[test]
fn bytes_that_no_vault_made_are_refused() {
    assert_eq!(Sealed::from_bytes(&[]), Err(SealedError::Short));
    assert_eq!(Sealed::from_bytes(&[1; 32]), Err(SealedError::Short));
    assert_eq!(Sealed::from_bytes(&[9; 64]), Err(SealedError::Version(9)));
    assert!(serde_json::from_str::<Sealed>("\"not base64!\"").is_err());
}

fn file_or_new(path: &Path) -> Result<MasterKey, MasterKeyError> {
    MasterKey::load(MasterKeySource::FileOrNew(path.to_owned()))
}

#[test]
fn a_new_key_file_is_private_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let made = file_or_new(&path).unwrap();
    assert!(made.was_created());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = file_or_new(&path).unwrap();
    assert!(!read.was_created());
    assert_eq!(Vault::new(&made).active_key(), Vault::new(&read).active_key());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft stays behind");
}

#[test]
fn processes_that_make_the_key_at_once_agree_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| Vault::new(&file_or_new(&path).unwrap()))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap().active_key()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    fs::write(&path, ONE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = file_or_new(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
}

#[test]
fn a_file_of_roots_may_be_read_by_the_group_that_it_was_put_there_for() {
    for (mode, owner, is_root, exposed) in [
        (0o600, 1000, false, false),
        (0o400, 0, true, false),
        (0o440, 1000, false, true),
        // As a Secret of Kubernetes is mounted.
        (0o440, 0, false, false),
        (0o640, 0, false, false),
        (0o440, 0, true, true),
        (0o460, 0, false, true),
        (0o450, 0, false, true),
        (0o444, 0, false, true),
        (0o604, 0, false, true),
    ] {
        assert_eq!(master::is_exposed(mode, owner, || is_root), exposed, "{mode:o} of {owner}, as root: {is_root}");
    }
}

#[test]
fn a_broken_or_missing_key_file_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let missing = MasterKey::load(MasterKeySource::File(path.clone())).unwrap_err();
    assert!(missing.to_string().contains("master.key"));
    assert!(!path.exists());
    fs::write(&path, "garbage").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(file_or_new(&path).unwrap_err(), MasterKeyError::Malformed { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "garbage");
}

#[test]
fn a_key_file_that_cannot_be_read_or_made_is_not_called_missing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    // Its own name is as long as a name may be; that of the draft beside it is too long.
    let long = folder.path().join("k".repeat(255));
    for (path, refused) in [(folder.path().join("file/master.key"), "read"), (long.clone(), "create")] {
        let error = file_or_new(&path).unwrap_err();
        assert!(matches!(error, MasterKeyError::Io { action, .. } if action == refused), "{error:?}");
    }
    assert!(!long.exists());
}

#[test]
fn a_key_file_without_a_folder_is_in_the_present_one() {
    for (file, folder) in [("/data/master.key", "/data"), ("data/master.key", "data"), ("master.key", ".")] {
        assert_eq!(master::folder_of(Path::new(file)), Path::new(folder));
    }
}

#[test]
fn answers_have_a_key_for_each_owner_and_day() {
    let vault = vault(ONE);
    let place = Binding::named("answer", b"k");
    let (ada, bob) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
    let at = |secs| Timestamp::from_second(secs).unwrap();
    let today = Period::day_of(at(86_400), ada);
    assert_eq!(today, Period::day_of(at(2 * 86_400 - 1), ada));
    let sealed = vault.seal_in(&today, &place, b"planted");
    assert_eq!(vault.open_in(&today, &place, &sealed).unwrap().expose(), b"planted");
    for other in [Period::day_of(at(86_399), ada), Period::day_of(at(86_400), bob)] {
        assert!(vault.open_in(&other, &place, &sealed).is_err(), "{other:?}");
    }
    assert!(vault.open(&place, &sealed).is_err());
}

#[test]
fn a_ring_grows_and_shrinks_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let of_file = || MasterKey::load(MasterKeySource::File(path.clone())).unwrap();
    let vault = Vault::new(&file_or_new(&path).unwrap());
    let sealed = vault.seal(&Binding::named("x", b"y"), b"planted");

    let both = of_file().with_new();
    assert_eq!((of_file().keys(), both.keys(), both.clone().active_alone().keys()), (1, 2, 1));
    both.replace(&path).unwrap();
    vault.replace_ring(&of_file());
    assert_eq!(vault.keys(), 2);
    assert!(vault.is_outdated(&sealed) && vault.open(&Binding::named("x", b"y"), &sealed).is_ok());
    let again = of_file().with_new();
    assert_eq!(again.to_text().expose(), both.to_text().expose(), "a rotation under way is not begun again");
    let text = MasterKey::load(MasterKeySource::Value(both.to_text())).unwrap();
    assert_eq!(text.to_text().expose(), both.to_text().expose(), "as text it is the same ring");

    of_file().active_alone().replace(&path).unwrap();
    vault.replace_ring(&of_file());
    assert!(matches!(vault.open(&Binding::named("x", b"y"), &sealed), Err(VaultError::UnknownKey { .. })));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}
