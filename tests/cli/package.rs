//! What the Debian package is made of, without making it: `scripts/release` does that.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use toml::Table;

#[test]
fn the_package_lists_files_that_are_there_and_scripts_that_can_run() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(source.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let manifest: Table = read("Cargo.toml").parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let release = read("scripts/release");
    for asset in package["assets"].as_array().unwrap() {
        let path = asset[0].as_str().unwrap();
        match path.strip_prefix("target/stage/") {
            // The release makes it there.
            Some(made) => assert!(release.contains(&format!("$stage/{}", made.trim_end_matches("/*.1.gz"))), "{made}"),
            None => assert!(source.join(path).is_file(), "{path} is not there"),
        }
    }
    let units = package["systemd-units"]["unit-scripts"].as_str().unwrap();
    let unit = read(&format!("{units}/{}.service", package["systemd-units"]["unit-name"].as_str().unwrap()));
    assert!(unit.contains("ExecStart=/usr/bin/zeroone serve"), "the package's program is there");
    let scripts = package["maintainer-scripts"].as_str().unwrap();
    for name in ["postinst", "postrm"] {
        let script = source.join(scripts).join(name);
        assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0o111, "{name} can be run");
        assert!(Command::new("sh").arg("-n").arg(&script).status().unwrap().success(), "{name} is a script");
        assert!(fs::read_to_string(&script).unwrap().contains("#DEBHELPER#"), "{name} has room for the unit's steps");
    }
}
