//! Holds `docs/CONFIGURATION.md` to the settings: the page is made from them, here, and the test fails
//! when it is not what they give. `PEERPOST_WRITE_DOCS=1 cargo test --lib --features otel
//! config::reference` makes it anew.

use std::fs;
use std::path::Path;

use super::example;
use super::setting::{Kind, Setting};

/// Set to anything: the page is written before it is compared.
const WRITE_VARIABLE: &str = "PEERPOST_WRITE_DOCS";

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the definitions of the flags by `PEERPOST_WRITE_DOCS=1 cargo test --lib --features otel config::reference`. Not edited by hand. -->

Every setting of `peerpost serve` is a flag, a variable of the environment, and a key of one TOML file. The
environment goes before the file, and flags before both:

```sh
peerpost config --example > peerpost.toml      # every setting, as comments to choose from
peerpost config --config peerpost.toml         # what counts in the end, and where each value is from
peerpost config --config peerpost.toml --check # exit code 0 if a server could start with it
peerpost serve --config peerpost.toml          # or PEERPOST_CONFIG=peerpost.toml
```

```toml
listen = [\"0.0.0.0:443\", \"unix:/run/peerpost/socket\"]
tls-cert = \"/etc/peerpost/fullchain.pem\"
tls-key = \"/etc/peerpost/privkey.pem\"
data-dir = \"/var/lib/peerpost\"
workers = 4
```

- A key is the flag without its dashes. There are no tables.
- Switches are `true` or `false`. In the environment 1, yes, on and 0, no, off are understood as well; the
  flag alone means true, and `--open=false` turns off what the file or the environment turns on.
- Lists hold any number of values, in the environment with commas between. A list replaces the one of the
  place before it.
- A key that there is not, a value of another type or out of its bounds is an error with the file, the line,
  the key and the bound, and the server does not start (exit code 2). So is a bad value that a flag
  replaces.
- Paths are relative to the folder in which the server is started, in the file too.
- No secret stands in a setting: keys of certificates are named by their files.
- `peerpost config` prints a file: with `peerpost config > new.toml` what is set all over the place is in
  one.

**What changes while the server runs.** No setting: they are read at the start, and a changed file counts at
the next one. At SIGHUP the certificates are read again, from the files that were named at the start.

`peerpost admin` takes `data-dir` and `admin-socket` from the same file (`--config`, `PEERPOST_CONFIG`), so that it
finds the server that was started with it. The commands of clients have settings of their own (`peerpost --help`, `peerpost profile`), in
another file.

## Settings
";

/// Stands in the sections of settings that only some builds have.
const OTEL_ONLY: &str = "- Only in builds with the feature `otel`\n";

/// How a section begins.
const SECTION: &str = "\n### ";

fn page() -> String {
    let sections = Setting::all().iter().map(section).collect::<String>();
    format!("{INTRODUCTION}{sections}")
}

fn section(setting: &Setting) -> String {
    let (key, variable, name) = (setting.key(), setting.variable(), setting.value_name());
    let possible = setting.possible_values();
    let (flag, kind) = match setting.kind() {
        Kind::Switch => (format!("--{key}[=true|false]"), "true or false".to_owned()),
        Kind::WholeNumber => (format!("--{key} {name}"), "a whole number".to_owned()),
        Kind::Number => (format!("--{key} {name}"), "a number".to_owned()),
        Kind::Text | Kind::TextOrNumber if possible.is_empty() => {
            (format!("--{key} {name}"), "a text".to_owned())
        }
        Kind::Text | Kind::TextOrNumber => {
            (format!("--{key} {name}"), format!("`{}`", possible.join("` or `")))
        }
    };
    let kind = if setting.is_list() { format!("a list, each of it {kind}") } else { kind };
    let (help, default) = (setting.help(), example::default(setting));
    let only = if key.starts_with("otlp-") { OTEL_ONLY } else { "" };
    format!(
        "{SECTION}`{key}`\n\n{help}\n\n- Flag: `{flag}`\n- Environment: `{variable}`\n- Value: {kind}\n- \
         Default: {default}\n{only}"
    )
}

/// The page as this build would make it: without the sections of settings that it does not have.
fn of_this_build(page: &str) -> String {
    let mut sections = page.split(SECTION);
    let introduction = sections.next().unwrap_or_default().to_owned();
    let is_here = |section: &&str| cfg!(feature = "otel") || !section.contains(OTEL_ONLY);
    sections.filter(is_here).fold(introduction, |page, section| page + SECTION + section)
}

#[test]
fn the_page_says_what_the_settings_are() {
    let made = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md");
    // Another build does not have all of them.
    if std::env::var_os(WRITE_VARIABLE).is_some() && cfg!(feature = "otel") {
        fs::write(&path, &made).expect("the page can be written");
    }
    let kept = of_this_build(&fs::read_to_string(&path).unwrap_or_default());
    let differs = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "docs/CONFIGURATION.md is not what the settings give; `{WRITE_VARIABLE}=1 cargo test --lib \
         --features otel config::reference` makes it anew. First difference (made, kept): {differs:#?}"
    );
}

/// Whether a text holds a number, or a word that says that there is no bound or where it is.
fn tells_bounds(help: &str) -> bool {
    help.chars().any(|c| c.is_ascii_digit())
}

#[test]
fn every_setting_has_a_name_everywhere_a_default_and_bounds() {
    let settings = Setting::all();
    assert!(settings.len() > 10, "{}", settings.len());
    for setting in &settings {
        let (key, variable, help) = (setting.key(), setting.variable(), setting.help());
        // The other is what OpenTelemetry calls it everywhere.
        let is_ours = variable.starts_with("PEERPOST_") || variable.starts_with("OTEL_");
        assert!(is_ours, "{key}: {variable}");
        assert!(help.len() > 10, "{key} is not described");
        if matches!(setting.kind(), Kind::WholeNumber | Kind::Number) {
            assert!(tells_bounds(&help), "the help of {key} names no bounds: {help}");
            assert_ne!(example::default(setting), "none", "{key} tells no default");
        }
    }
    let mut variables: Vec<_> = settings.iter().map(Setting::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), settings.len(), "a variable stands for two settings");
}

#[test]
fn the_example_is_a_file_whose_every_line_can_be_used() {
    let settings = Setting::all();
    let example = example::file();
    for setting in &settings {
        assert!(example.contains(&format!("\n#{} = ", setting.key())), "{}", setting.key());
    }
    let commented = example.lines().filter(|line| !line.is_empty());
    assert!(commented.clone().all(|line| line.starts_with('#')), "{example}");
    let values = example.lines().filter_map(|line| line.strip_prefix('#'));
    let values = values.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    toml::from_str::<toml::Table>(&values.collect::<Vec<_>>().join("\n")).expect("TOML");
}
