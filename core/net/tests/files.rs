//! The files that hold a node's secrets.

use std::fs;
use std::path::Path;

use entgldb_net::{ClusterSecret, Identity, IdentityError, PrivateFileError, SecretError};

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) {}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    set_mode(path, 0o600);
}

#[test]
fn an_identity_is_created_once_and_is_the_same_ever_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let created = Identity::load_or_create(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let loaded = Identity::load_or_create(&path).unwrap();
    assert_eq!(loaded.node_id(), created.node_id());
    assert_eq!(loaded.signing_key(), created.signing_key());
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something else was left behind");
    assert_ne!(Identity::load_or_create(&folder.path().join("other")).unwrap().node_id(), created.node_id());
}

#[cfg(unix)]
#[test]
fn an_identity_file_is_only_for_its_owner_and_refused_when_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let created = Identity::load_or_create(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    for exposed in [0o640, 0o604, 0o620, 0o666, 0o610] {
        set_mode(&path, exposed);
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::File(PrivateFileError::Exposed { .. })),
            "{exposed:o}: {error}"
        );
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    for private in [0o600, 0o400] {
        set_mode(&path, private);
        assert_eq!(Identity::load_or_create(&path).unwrap().node_id(), created.node_id());
    }
}

#[test]
fn a_damaged_identity_is_refused_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    Identity::load_or_create(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let changed = |line: usize| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let digit = lines[line].pop().unwrap();
        let before = lines[line].pop().unwrap();
        lines[line].extend([if before == 'A' { 'B' } else { 'A' }, digit]);
        lines.join("\n")
    };
    let whole = text.len();
    let mut damaged =
        vec![String::new(), text[..whole / 2].to_owned(), text[..whole - 3].to_owned(), "x".repeat(9000)];
    damaged.extend((0..4).map(changed));
    for (number, content) in damaged.into_iter().enumerate() {
        write(&path, &content);
        assert!(Identity::load_or_create(&path).is_err(), "damage {number} was accepted");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn an_identity_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let error = Identity::load_or_create(&folder.path().join("missing/identity")).unwrap_err();
    assert!(matches!(error, IdentityError::File(PrivateFileError::Io { .. })), "{error}");
    assert!(Identity::load_or_create(folder.path()).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_secret_file_holds_a_generated_secret_or_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let text = |secret: &ClusterSecret| secret.to_text().to_string();
    let generated = text(&ClusterSecret::generate());
    write(&path, &format!("# the shop\n\n  {generated}  \n"));
    assert_eq!(text(&ClusterSecret::read_file(&path).unwrap()), generated);

    const PASSPHRASE: &str = "marble otter: window fifteen";
    write(&path, &format!("passphrase: {PASSPHRASE}\n"));
    let expected = ClusterSecret::from_passphrase(PASSPHRASE, "default").unwrap();
    assert_eq!(text(&ClusterSecret::read_file(&path).unwrap()), text(&expected));
    write(&path, &format!("cluster: shop\npassphrase: {PASSPHRASE}"));
    let expected = ClusterSecret::from_passphrase(PASSPHRASE, "shop").unwrap();
    assert_eq!(text(&ClusterSecret::read_file(&path).unwrap()), text(&expected));
}

#[test]
fn a_secret_file_that_says_nothing_or_two_things_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let generated = ClusterSecret::generate().to_text().to_string();
    for content in [
        String::new(),
        "# nothing\n".to_owned(),
        "marble otter window fifteen".to_owned(),
        "cluster: shop".to_owned(),
        format!("{generated}\n{generated}"),
        format!("{generated}\ncluster: shop"),
        format!("{generated}\npassphrase: marble otter window fifteen"),
        "passphrase: marble otter window fifteen\npassphrase: another window fifteen".to_owned(),
    ] {
        write(&path, &content);
        assert!(matches!(ClusterSecret::read_file(&path), Err(SecretError::Malformed)), "{content:?}");
    }
    write(&path, "passphrase: password1234");
    assert!(matches!(ClusterSecret::read_file(&path), Err(SecretError::Weak)));
    fs::write(&path, [0xff; 40]).unwrap();
    assert!(matches!(
        ClusterSecret::read_file(&path),
        Err(SecretError::File(PrivateFileError::Content { .. }))
    ));
}

#[cfg(unix)]
#[test]
fn a_secret_file_that_others_can_read_is_refused_with_the_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    write(&path, &ClusterSecret::generate().to_text());
    assert!(ClusterSecret::read_file(&path).is_ok());
    set_mode(&path, 0o644);
    let error = ClusterSecret::read_file(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
}
