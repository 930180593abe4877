//! Holds the workspace's shape: which crate may know which, where a foreign crate may be named, how long a file
//! may be, that every module says what it is for, and that the documents name files that exist.
//!
//! It reads text and needs none of the crates, so it stands with the one that builds in seconds.

mod layers;

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_LINES: usize = 600;
const CRATES: [&str; 5] = ["grizzly-wal", "grizzly-provider", "grizzly-optimizer", "grizzly-flight", "examples"];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies in the workspace").to_path_buf()
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path);
    assert!(text.is_ok(), "cannot read {}: {text:?}", path.display());
    text.unwrap_or_default()
}

/// Every Rust file of the workspace, relative to its root, with its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    for member in CRATES {
        collect(&root.join(member), &mut files);
    }
    assert!(files.len() > CRATES.len(), "found only {} Rust files under {}", files.len(), root.display());
    let mut sources: Vec<_> = files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
            let text = read(&file);
            (name, text)
        })
        .collect();
    sources.sort();
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a folder of the workspace can be listed");
    for entry in entries {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The code of a file: lines without their comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(number, line)| {
        let comment = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" // ") };
        (number + 1, comment.map_or(line, |at| &line[..at]))
    })
}

/// Fails with one line per finding.
fn assert_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// One entry of a dependency table of a manifest.
#[derive(Debug, PartialEq)]
struct Dependency {
    name: String,
    table: String,
    optional: bool,
}

/// Reads the dependency tables of a manifest in the forms `name = …`, `name.workspace = true` and
/// `[dependencies.name]`; a renamed package counts under its real name.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut table = String::new();
    let mut own_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            own_table = false;
            table = header.to_owned();
            if let Some((before, name)) = header.rsplit_once("dependencies.") {
                table = format!("{before}dependencies");
                own_table = true;
                found.push(Dependency { name: name.to_owned(), table: table.clone(), optional: false });
            }
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            if !own_table {
                let name = line.split(['=', '.', ' ']).next().unwrap_or_default().to_owned();
                found.push(Dependency { name, table: table.clone(), optional: false });
            }
            let last = found.last_mut().expect("a line of a table belongs to an entry");
            last.optional |= line.replace(' ', "").contains("optional=true");
            if let Some((_, package)) = line.split_once("package = \"") {
                last.name = package.split('"').next().unwrap_or_default().to_owned();
            }
        }
    }
    found
}

fn manifest(member: &str) -> String {
    read(&root().join(member).join("Cargo.toml"))
}

#[test]
fn manifests_are_read_in_every_form() {
    let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { version = \"1\", optional = true }\n\
                # c = \"1\"\n[target.'cfg(unix)'.dependencies]\nd = \"1\"\n[dev-dependencies.e]\npackage = \"f\"\n";
    let names: Vec<_> = dependencies(text).into_iter().map(|d| (d.name, d.table, d.optional)).collect();
    let expected = [
        ("a", "dependencies", false),
        ("b", "dependencies", true),
        ("d", "target.'cfg(unix)'.dependencies", false),
        ("f", "dev-dependencies", false),
    ];
    assert_eq!(names, expected.map(|(name, table, optional)| (name.to_owned(), table.to_owned(), optional)));
}

#[test]
fn dependency_arrows_point_down() {
    let allowed = [
        ("grizzly-wal", &[][..]),
        ("grizzly-provider", &["grizzly-wal"][..]),
        ("grizzly-optimizer", &["grizzly-provider"][..]),
        ("grizzly-flight", &["grizzly-provider", "grizzly-optimizer"][..]),
        ("examples", &["grizzly-provider", "grizzly-optimizer", "grizzly-flight"][..]),
    ];
    let mut findings = Vec::new();
    for (member, may) in allowed {
        for dependency in dependencies(&manifest(member)) {
            // A crate may switch on features of its own for its tests.
            let itself = dependency.name == member && dependency.table == "dev-dependencies";
            if dependency.name.starts_with("grizzly-") && !itself && !may.contains(&dependency.name.as_str()) {
                findings.push(format!("{member} [{}] names {}", dependency.table, dependency.name));
            }
        }
    }
    assert_none("wal <- provider <- optimizer, flight <- examples, and no other way", findings);
}

#[test]
fn flight_knows_the_optimizer_only_in_its_command() {
    let manifest = manifest("grizzly-flight");
    let mut findings: Vec<_> = dependencies(&manifest)
        .into_iter()
        .filter(|d| d.name == "grizzly-optimizer" && !(d.table == "dependencies" && d.optional))
        .map(|d| format!("grizzly-flight [{}] has grizzly-optimizer not as an option", d.table))
        .collect();
    let features = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    findings.extend(
        features
            .take_while(|line| !line.starts_with('['))
            .filter(|line| line.contains("grizzly-optimizer") && !line.starts_with("cli "))
            .map(|line| format!("feature turns the optimizer on: {line}")),
    );
    for (file, text) in sources() {
        let library = file.starts_with("grizzly-flight/src/") && !file.starts_with("grizzly-flight/src/bin/");
        if library && code(&text).any(|(_, line)| line.contains("grizzly_optimizer")) {
            findings.push(format!("{file} names grizzly_optimizer"));
        }
    }
    assert_none("the server takes a session factory; only the command brings the rules in", findings);
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let wire = ["tonic", "prost", "arrow-flight"];
    let banned: [(&str, &[&str]); 3] = [
        ("grizzly-wal", &["arrow", "datafusion", "vortex", "sqlparser"]),
        ("grizzly-provider", &wire),
        ("grizzly-optimizer", &wire),
    ];
    let mut findings = Vec::new();
    for (member, names) in banned {
        for dependency in dependencies(&manifest(member)) {
            if names.iter().any(|name| dependency.name == *name || dependency.name.starts_with(&format!("{name}-"))) {
                findings.push(format!("{member} [{}] names {}", dependency.table, dependency.name));
            }
        }
    }
    for (file, text) in sources() {
        let Some(inner) = file.strip_prefix("grizzly-provider/src/") else { continue };
        let engine = inner.starts_with("engine/");
        let encoding = inner.starts_with("engine/segment/encoding");
        for (number, line) in code(&text) {
            if engine && line.contains("datafusion") {
                findings.push(format!("{file}:{number} names datafusion: {}", line.trim()));
            }
            if !encoding && (line.contains("vortex_") || line.contains("vortex::")) {
                findings.push(format!("{file}:{number} names vortex: {}", line.trim()));
            }
        }
    }
    assert_none("the log knows no tables, the engine no DataFusion, one module Vortex, one crate the wire", findings);
}

#[test]
fn the_optimizer_holds_no_plan_nodes() {
    let findings = sources()
        .into_iter()
        .filter(|(file, text)| {
            file.starts_with("grizzly-optimizer/src/")
                && code(text).any(|(_, line)| line.contains("ExecutionPlan for "))
        })
        .map(|(file, _)| file)
        .collect();
    assert_none("a plan without the rules must give the same rows, so nodes belong to the provider", findings);
}

#[test]
fn every_module_says_what_it_is_for() {
    let findings =
        sources().into_iter().filter(|(_, text)| !text.trim_start().starts_with("//!")).map(|(file, _)| file).collect();
    assert_none("a Rust file opens with a `//!` line", findings);
}

#[test]
fn files_stay_short() {
    let findings = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .map(|(file, text)| format!("{file}: {} lines", text.lines().count()))
        .collect();
    assert_none(&format!("no Rust file is longer than {MAX_LINES} lines"), findings);
}

#[test]
fn nothing_is_left_undone() {
    // Spelled in two halves, so that this file passes its own test.
    let words =
        [["to", "do!("], ["unimpl", "emented!("], ["FIX", "ME"], ["#[ign", "ore"]].map(|halves| halves.concat());
    let names = ["utils.rs", "util.rs", "common.rs", "helpers.rs"];
    let mut findings = Vec::new();
    for (file, text) in sources() {
        if names.iter().any(|name| file.ends_with(&format!("/{name}"))) {
            findings.push(format!("{file}: a helper lives with its user or gets a name"));
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                findings.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert_none("no stub, no skipped test, no attic", findings);
}

#[test]
fn one_version_of_what_must_agree() {
    let lock = read(&root().join("Cargo.lock"));
    let mut versions: Vec<(&str, &str)> = Vec::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if line == "[[package]]" {
            let name = lines.next().and_then(|line| line.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
            let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap_or_default();
            versions.push((name, version.trim_matches('"')));
        }
    }
    let single = |name: &str| {
        ["arrow", "datafusion", "vortex"]
            .iter()
            .any(|family| name == *family || name.starts_with(&format!("{family}-")))
            || ["object_store", "parquet", "sqlparser", "tokio", "tonic", "prost", "rustls", "zstd", "zstd-sys"]
                .contains(&name)
    };
    let mut findings = Vec::new();
    for (position, (name, version)) in versions.iter().enumerate() {
        for (other, second) in &versions[..position] {
            if name == other && single(name) {
                findings.push(format!("{name} {second} and {version}"));
            }
        }
        if ["aws-lc-sys", "openssl-sys", "native-tls", "protoc-bin-vendored", "bindgen", "vortex-io"].contains(name) {
            findings.push(format!("{name} {version} needs more than cargo and a C compiler"));
        }
    }
    assert!(versions.len() > 100, "Cargo.lock names only {} packages", versions.len());
    assert_none("Cargo.lock holds one version of each crate whose types we share, and builds from source", findings);
}

#[test]
fn documents_name_files_that_exist() {
    let root = root();
    let mut findings = Vec::new();
    let mut seen = 0;
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "grizzly-provider/TRANSACTIONS.md"] {
        // Every second piece between backticks is code.
        for path in read(&root.join(document)).split('`').skip(1).step_by(2) {
            let named = CRATES.iter().any(|member| path.starts_with(&format!("{member}/"))) || path.starts_with(".ci/");
            if named && !path.contains([' ', '*', '{', '<', '\n']) {
                seen += 1;
                if !root.join(path).exists() {
                    findings.push(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(seen > 20, "the documents name only {seen} paths");
    assert_none("a path in a document exists", findings);
}

/// A promise is held by tests that are there: `file` `test` `test`, `file` `test`.
#[test]
fn promises_name_tests_that_exist() {
    let text = read(&root().join("PROMISES.md"));
    let (mut findings, mut named) = (Vec::new(), 0);
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let mut file: Option<(&str, String)> = None;
        let holders = line.rsplit(" | ").next().unwrap_or_default();
        for name in holders.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                let path = root().join(name);
                let content = fs::read_to_string(&path).unwrap_or_default();
                if content.is_empty() {
                    findings.push(format!("PROMISES.md names {name}, which is not there"));
                }
                file = Some((name, content));
            } else if let Some((path, content)) = &file {
                named += 1;
                let forms = [format!("fn {name}("), format!("def {name}("), format!("{name}()")];
                if !forms.iter().any(|form| content.contains(form.as_str())) {
                    findings.push(format!("PROMISES.md names {name}, which is not in {path}"));
                }
            }
        }
    }
    assert!(named > 100, "only {named} tests were found");
    assert_none("promises name tests that exist", findings);
}
