//! The house rules of the design, held: which layer may know which, who may name what, how long a
//! file may be. Reads the sources as text, with nothing but the standard library.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/` and their layers. A file imports from lower layers and its own module.
const LAYERS: [(&str, u8); 18] = [
    ("version", 0),
    ("proto", 0),
    ("metrics", 0),
    ("domain", 0),
    ("random", 0),
    // Knows `version`, which knows nothing.
    ("telemetry", 1),
    ("store", 1),
    ("hub", 1),
    ("limiter", 1),
    ("client", 1),
    ("auth", 2),
    ("messenger", 2),
    ("grpc", 3),
    ("http", 3),
    ("server", 4),
    ("testing", 5),
    ("cli", 6),
    ("main", 7),
];

/// What only some modules may name, and which those are.
const RESERVED: [(&str, &[&str]); 6] = [
    // The one map from errors to statuses is in grpc; a client and the harness receive them.
    ("tonic::Status", &["grpc", "http", "client", "testing"]),
    ("anyhow", &["cli", "main"]),
    ("diesel", &["store"]),
    ("diesel_migrations", &["store"]),
    ("libsqlite3_sys", &["store"]),
    ("tempfile", &["testing"]),
];

/// What the domain does without.
const NOT_IN_DOMAIN: [&str; 5] = ["tokio", "tokio_stream", "tokio_util", "tonic", "tonic_types"];

const FORBIDDEN_CALLS: [&str; 4] = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];

const FILE_LINES_MAX: usize = 500;

#[test]
fn every_file_keeps_the_house_rules() {
    let mut complaints = Vec::new();
    for path in rust_files(&["src", "tests", "build.rs"]) {
        let source = fs::read_to_string(root().join(&path)).expect("a source file can be read");
        complaints.extend(complaints_about(&path, &source));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_test_of_the_suite_is_declared() {
    let main = fs::read_to_string(root().join("tests/suite/main.rs")).expect("main.rs is there");
    for path in rust_files(&["tests/suite"]) {
        let module = path.trim_start_matches("tests/suite/").trim_end_matches(".rs");
        let declared = main.lines().any(|line| line == format!("mod {module};"));
        assert!(declared || module == "main", "{path} is not declared in main.rs, so never run");
    }
}

/// A guarantee whose test was renamed or deleted is held by nothing.
#[test]
fn every_test_that_the_guarantees_name_is_there() {
    let page = fs::read_to_string(root().join("docs/GUARANTEES.md")).expect("the page is there");
    let named: Vec<&str> = page.split('`').filter(|it| is_path_of_a_test(it)).collect();
    assert!(named.len() > 40, "the page names only {} tests", named.len());
    for name in named {
        let (module, test) = name.rsplit_once("::").expect("a path");
        let files = match module.split_once("::") {
            Some((unit, _)) => rust_files(&[&format!("src/{unit}"), &format!("src/{unit}.rs")]),
            None => vec![format!("tests/suite/{module}.rs")],
        };
        let is_there = files.iter().any(|file| {
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            source.contains(&format!("fn {test}()"))
        });
        assert!(is_there, "docs/GUARANTEES.md names `{name}`, which is in none of {files:?}");
    }
}

/// A break of a promise that fits the sources no more breaks nothing, and nobody would notice.
#[test]
fn every_break_fits_the_sources() {
    let mut breaks = 0;
    for entry in fs::read_dir(root().join("tests/breaks")).expect("the breaks are there") {
        let file = entry.expect("an entry").path();
        let patch = fs::read_to_string(&file).expect("a patch can be read");
        let (mut source, mut hunk) = (String::new(), String::new());
        for line in patch.lines().chain(["@@"]) {
            if line.starts_with("@@") || line.starts_with("diff ") {
                assert!(source.contains(&hunk), "{} does not apply:\n{hunk}", file.display());
                hunk.clear();
            } else if let Some(file) = line.strip_prefix("--- a/") {
                source = fs::read_to_string(root().join(file)).expect("a source file");
            } else if let Some(text) = line.strip_prefix([' ', '-']).filter(|_| !source.is_empty())
            {
                hunk.push_str(text);
                hunk.push('\n');
            }
        }
        breaks += 1;
    }
    assert!(breaks > 20, "there are only {breaks} breaks");
}

fn is_path_of_a_test(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
    text.contains("::") && !text.contains('…') && text.chars().all(is_name)
}

/// What is wrong with a file, a line for each.
fn complaints_about(path: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    if let Some(module) = module_of(path) {
        let code = without_comments_and_texts(source);
        let shipped = if is_test_file(path) { String::new() } else { without_tests(&code) };
        complain_about_layers(path, module, &code, &mut complaints);
        complain_about_names(path, module, &shipped, &mut complaints);
        for call in FORBIDDEN_CALLS {
            if shipped.contains(call) {
                complaints.push(format!("{path}: `{call}` outside of tests"));
            }
        }
        let is_root = path == format!("src/{module}/mod.rs") || path == format!("src/{module}.rs");
        if code.contains("super::super::") || is_root && shipped.contains("super::") {
            complaints.push(format!("{path}: `super::` out of its module; write `crate::`"));
        }
    }
    complaints
}

fn complain_about_layers(path: &str, module: &str, code: &str, complaints: &mut Vec<String>) {
    let Some(layer) = layer_of(module) else {
        complaints.push(format!("{path}: `{module}` has no place in the table of layers"));
        return;
    };
    let root = if module == "main" { "peerpost" } else { "crate" };
    for name in names_under(code, root) {
        let is_lower = layer_of(&name).is_some_and(|other| other < layer);
        if layer_of(&name).is_some() && name != module && !is_lower {
            complaints.push(format!("{path}: `{module}` may not know `{name}`"));
        }
    }
}

fn complain_about_names(path: &str, module: &str, code: &str, complaints: &mut Vec<String>) {
    for (name, modules) in RESERVED {
        let is_named = match name.split_once("::") {
            Some((root, item)) => names_under(code, root).iter().any(|it| it == item),
            None => is_root_of_a_path(code, name),
        };
        if is_named && !modules.contains(&module) {
            complaints.push(format!("{path}: `{name}` is only for {}", modules.join(", ")));
        }
    }
    for name in NOT_IN_DOMAIN {
        if module == "domain" && is_root_of_a_path(code, name) {
            complaints.push(format!("{path}: the domain does without `{name}`"));
        }
    }
}

/// The module of `src/` to which a file belongs: `None` for those that only declare modules, and
/// for files elsewhere.
fn module_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/").filter(|below| *below != "lib.rs")?;
    let first = below.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The names that stand directly under `root` in paths and imports: of `root::a::b` and
/// `root::{c, d::{e, f}}` these are a, c and d.
fn names_under(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        if code[..at].ends_with(is_part_of_a_name) {
            continue;
        }
        let rest = code[at + root.len() + 2..].trim_start();
        match rest.strip_prefix('{') {
            None => names.push(first_name(rest)),
            Some(group) => names.extend(members(group).iter().map(|member| first_name(member))),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The members of an import group whose opening brace was read.
fn members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(group[begin..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(group[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    members
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| is_part_of_a_name(*c)).collect()
}

fn is_part_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a path or an import begins with `name`.
fn is_root_of_a_path(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let begins = !before.ends_with(is_part_of_a_name) && !before.ends_with([':', '.']);
        begins && (after.starts_with("::") || before.trim_end().ends_with("use"))
    })
}

/// The code without the modules that are compiled for its tests alone.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let Some((before, after)) = code.split_once(MARK) else { return code.to_owned() };
    let Some(open) = after.find(['{', ';']) else { return before.to_owned() };
    let mut depth = 0_usize;
    for (at, c) in after[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return format!("{before}{}", without_tests(&after[open + at + 1..]));
        }
    }
    before.to_owned()
}

/// The code with its comments and the texts between quotes taken out. Lines stay lines.
fn without_comments_and_texts(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            'r' if !code.ends_with(is_part_of_a_name) => raw_text_length(rest),
            '"' => text_length(rest),
            '\'' => char_length(rest),
            _ => 0,
        };
        let length = if skip == 0 { c.len_utf8() } else { skip };
        if skip == 0 {
            code.push(c);
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length..];
    }
    code
}

/// The length of a text that begins here, with its quotes.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw text such as `r#"…"#`; 0 when none begins here.
fn raw_text_length(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 2 + hashes;
    rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len())
}

/// The length of a character such as `'{'`; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    if rest[1..].starts_with('\\') {
        return rest[3..].find('\'').map_or(0, |at| at + 4);
    }
    let second = rest.chars().nth(1).map_or(0, char::len_utf8);
    if rest[1 + second..].starts_with('\'') { second + 2 } else { 0 }
}

/// The Rust files below these paths, as paths from the root with `/` between.
fn rust_files(paths: &[&str]) -> Vec<String> {
    let mut waiting: Vec<PathBuf> = paths.iter().map(|path| root().join(path)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a source folder can be read");
            waiting.extend(entries.map(|entry| entry.expect("a source folder can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root()).expect("found below the root");
            files.push(below.to_str().expect("a name in UTF-8").replace('\\', "/"));
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no Rust files below {paths:?}");
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rules, tried on files that break them and on files that do not.
mod tried {
    use super::{FILE_LINES_MAX, complaints_about};

    #[track_caller]
    fn objects(path: &str, source: &str) {
        assert_eq!(complaints_about(path, source).len(), 1, "{source}");
    }

    #[track_caller]
    fn accepts(path: &str, source: &str) {
        assert_eq!(complaints_about(path, source), [""; 0], "{source}");
    }

    #[test]
    fn imports_point_down() {
        objects("src/store/mod.rs", "use crate::hub::Hub;");
        objects("src/hub.rs", "use crate::store::Store;");
        objects("src/domain/user.rs", "fn f() { crate::proto::User::default(); }");
        objects("src/messenger/send.rs", "use crate::{domain::User, grpc::{Map, encode}};");
        objects("src/messenger/send.rs", "use crate::{\n    domain::{self, User},\n    auth,\n};");
        objects("src/server/mod.rs", "pub(crate) use crate::testing as t;");
        objects("src/grpc/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::cli::Run;\n}");
        objects("src/elsewhere.rs", "");
        accepts("src/messenger/send.rs", "use crate::{domain::User, hub::Hub, store::{self, S}};");
        accepts("src/store/writer.rs", "use crate::store::rows::Row;\nuse super::schema;");
        accepts("src/main.rs", "use peerpost::cli;\nfn main() { peerpost::server::bind(); }");
        accepts("src/lib.rs", "pub mod domain;\npub use crate::cli::x;");
        accepts("src/store/mod.rs", "// use crate::hub::Hub;\nconst A: &str = \"crate::hub::x\";");
    }

    #[test]
    fn a_module_does_not_climb_out_of_itself() {
        objects("src/hub.rs", "use super::store::Store;");
        objects("src/store/mod.rs", "use super::hub::Hub;");
        objects("src/store/writer.rs", "use super::super::hub::Hub;");
        accepts("src/store/writer/mod.rs", "use super::StoreError;");
        accepts("src/hub.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}");
    }

    #[test]
    fn some_names_are_for_some_modules() {
        objects("src/messenger/mod.rs", "fn f() -> tonic::Status {}");
        objects("src/auth/mod.rs", "use tonic::{Request, Status};");
        objects("src/server/mod.rs", "use anyhow::Context as _;");
        objects("src/grpc/mod.rs", "use diesel::prelude::*;");
        objects("src/domain/time.rs", "use tokio::time::Instant;");
        accepts("src/grpc/errors.rs", "use tonic::{Code, Status};");
        accepts("src/auth/mod.rs", "use tonic::{Request, metadata::{Status2, Map}};");
        accepts("src/cli/mod.rs", "use anyhow::{Context as _, Result};");
        accepts("src/store/rows.rs", "use diesel::prelude::*;");
        accepts("src/server/mod.rs", "let my_diesel = 1; self.anyhow::<u8>();");
    }

    #[test]
    fn nothing_is_left_to_do_and_nothing_is_unwrapped() {
        objects("src/hub.rs", "fn f() { g().unwrap(); }");
        objects("src/hub.rs", "fn f() { todo!() }");
        objects("src/hub.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nfn f() { g().unwrap(); }");
        objects("src/hub.rs", "const A: char = '\"';\nfn f() { g().unwrap(); }\n// \"");
        accepts("src/hub.rs", "fn f() { g().unwrap_or_default(); }");
        accepts("src/hub.rs", "/// `x.unwrap()`\nconst A: &str = r#\"todo!() \"x\" \"#;");
        accepts("src/hub.rs", "#[cfg(test)]\nmod tests { fn f<'a>() { if x { g().unwrap() } } }");
    }

    #[test]
    fn a_file_ends() {
        objects("tests/suite/x.rs", &"\n".repeat(FILE_LINES_MAX + 1));
        objects("build.rs", &"\n".repeat(FILE_LINES_MAX + 1));
        accepts("src/hub.rs", &"\n".repeat(FILE_LINES_MAX));
    }
}
