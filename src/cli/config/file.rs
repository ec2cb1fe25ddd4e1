//! The file: TOML with a key for each setting, read with the line of each.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::{Kind, Setting};
use crate::cli::advice::advise;

/// The most that is read of a file: far more than every setting with its comments.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How alike a key and a setting have to be for one to be taken for a slip of the other (0 to 1), as
/// clap judges flags.
const ALIKE_MIN: f64 = 0.7;

/// What the file says of one setting.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) setting: &'a Setting,
    /// None for an empty list.
    pub(super) values: Vec<String>,
    /// The line of its key, from 1.
    pub(super) line: usize,
}

/// What is wrong in one line.
type Complaint = (usize, String);

/// Reads the file; every line that is wrong is named in the error.
pub(super) fn read<'a>(path: &Path, settings: &'a [Setting]) -> anyhow::Result<Vec<Entry<'a>>> {
    let text = text(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, settings).map_err(|mut complaints| {
        complaints.sort();
        let lines = complaints.iter().map(|(line, it)| format!("{}:{line}: {it}", path.display()));
        advise(
            anyhow!(lines.collect::<Vec<_>>().join("\n")),
            "`peerpost config --example` prints every setting with its bounds",
        )
    })
}

fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("it has more than {FILE_BYTES_MAX} bytes");
    }
    Ok(text)
}

fn parse<'a>(text: &str, settings: &'a [Setting]) -> Result<Vec<Entry<'a>>, Vec<Complaint>> {
    let line_at = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let line = line_at(error.span().map_or(0, |span| span.start));
        vec![(line, error.message().to_owned())]
    })?;
    let (mut entries, mut complaints) = (Vec::new(), Vec::new());
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        match entry(key.get_ref(), value.get_ref(), settings) {
            Ok((setting, values)) => entries.push(Entry { setting, values, line }),
            Err(complaint) => complaints.push((line, complaint)),
        }
    }
    if complaints.is_empty() { Ok(entries) } else { Err(complaints) }
}

fn entry<'a>(
    key: &str,
    value: &DeValue<'_>,
    settings: &'a [Setting],
) -> Result<(&'a Setting, Vec<String>), String> {
    let setting = settings.iter().find(|setting| setting.key() == key);
    let setting = setting.ok_or_else(|| unknown(key, settings))?;
    let values = values(setting, value)?;
    if values.is_empty() && !setting.default_values().is_empty() {
        return Err(format!("{key}: needs a value; leave the key out for the default"));
    }
    for value in &values {
        if let Some(complaint) = setting.complaint(value) {
            return Err(format!("{key} = {value}: {complaint}"));
        }
    }
    Ok((setting, values))
}

fn unknown(key: &str, settings: &[Setting]) -> String {
    let likeness = |setting: &&Setting| strsim::jaro(key, setting.key());
    let nearest = settings.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|setting| likeness(setting) > ALIKE_MIN) {
        Some(setting) => format!("there is no setting `{key}`; did you mean `{}`?", setting.key()),
        None => format!("there is no setting `{key}`"),
    }
}

/// The values as words of the command line.
fn values(setting: &Setting, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = |value: &DeValue<'_>| {
        let wanted = wanted(setting);
        format!("{}: must be {wanted}, and is a TOML {}", setting.key(), value.type_str())
    };
    let one = |value: &DeValue<'_>| word(setting.kind(), value).ok_or_else(|| wrong(value));
    match value {
        DeValue::Array(values) if setting.is_list() => {
            values.iter().map(Spanned::get_ref).map(one).collect()
        }
        value => Ok(vec![one(value)?]),
    }
}

fn wanted(setting: &Setting) -> String {
    let kind = match setting.kind() {
        Kind::Switch => "true or false",
        Kind::WholeNumber => "a whole number",
        Kind::Number => "a number",
        Kind::Text => "a text in quotes",
        Kind::TextOrNumber => "a text in quotes, or a number",
    };
    if setting.is_list() { format!("{kind}, or a list of such") } else { kind.to_owned() }
}

fn word(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(is_on)) => Some(is_on.to_string()),
        (Kind::Text | Kind::TextOrNumber, DeValue::String(text)) => Some(text.to_string()),
        (Kind::WholeNumber | Kind::Number | Kind::TextOrNumber, DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix()).ok().map(|number| number.to_string())
        }
        (Kind::Number | Kind::TextOrNumber, DeValue::Float(number)) => {
            Some(number.as_str().replace('_', ""))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<Complaint> {
        match parse(text, &Setting::all()) {
            Ok(entries) => panic!("{text} was taken: {entries:?}"),
            Err(complaints) => complaints,
        }
    }

    #[test]
    fn values_of_every_kind_are_taken_with_their_lines() {
        let text = "\n# a comment\nworkers = 0x1_0\nopen = true\n\ndata-dir = 'd'\n\
                    listen = [\n  '127.0.0.1:1',\n  'unix:/s',\n]\nallow-origin = 'https://a.b'\n";
        let settings = Setting::all();
        let entries = parse(text, &settings).expect("taken");
        let mut told: Vec<_> = entries
            .iter()
            .map(|Entry { setting, values, line }| (*line, setting.key(), values.join(" ")))
            .collect();
        told.sort();
        let expected = [
            (3, "workers", "16"),
            (4, "open", "true"),
            (6, "data-dir", "d"),
            (7, "listen", "127.0.0.1:1 unix:/s"),
            (11, "allow-origin", "https://a.b"),
        ];
        assert_eq!(told, expected.map(|(line, key, values)| (line, key, values.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_its_bound() {
        for (text, line, says) in [
            ("\nwrokers = 1", 2, "no setting `wrokers`; did you mean `workers`?"),
            ("data_dir = 'd'", 1, "did you mean `data-dir`?"),
            ("zzz = 1", 1, "no setting `zzz`"),
            ("[server]\nopen = true", 1, "no setting `server`"),
            ("config = 'x'", 1, "no setting `config`"),
            ("workers = 'x'", 1, "workers: must be a whole number, and is a TOML string"),
            ("workers = [1]", 1, "must be a whole number, and is a TOML array"),
            ("workers = 1.5", 1, "must be a whole number, and is a TOML float"),
            ("workers = 99999999999999999999", 1, "must be a whole number"),
            ("workers = 0", 1, "workers = 0: must be 1 to 1024"),
            ("body-bytes-max = 1048577", 1, "1048577 is not in 1..=1048576"),
            ("open = 1", 1, "open: must be true or false, and is a TOML integer"),
            ("data-dir = 5", 1, "data-dir: must be a text in quotes"),
            ("data-dir = ''", 1, "data-dir = : a value is required"),
            ("listen = []", 1, "listen: needs a value"),
            ("listen = [true]", 1, "or a list of such, and is a TOML boolean"),
            ("listen = ['nowhere']", 1, "listen = nowhere: "),
            ("log-format = 'xml'", 1, "must be one of text, json"),
            ("open = true\nopen = false", 2, "duplicate key"),
            ("open = true\nopen", 2, ""),
        ] {
            let complaints = complaints(text);
            let [(at, complaint)] = &complaints[..] else { panic!("{text}: {complaints:?}") };
            assert_eq!(*at, line, "{text}: {complaint}");
            assert!(complaint.contains(says), "{text}: {complaint}");
        }
        assert_eq!(complaints("workers = 0\nzzz = 1\n").len(), 2, "every line is named");
    }
}
