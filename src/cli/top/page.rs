//! A page of metrics in Prometheus's text format, read from whoever sent it: lines that are not of the
//! format are passed over, and there are bounds to all that is kept.

use std::collections::BTreeMap;

/// The most samples that are kept of a page; ours have some hundreds.
const SAMPLES_MAX: usize = 20_000;

/// The most labels of a sample.
const LABELS_MAX: usize = 16;

/// The longest line that is looked at, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// What a page says.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Page {
    samples: BTreeMap<String, Vec<Sample>>,
}

/// A value, and by which labels it is told apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(*value))
    }
}

impl Page {
    /// Reads a page.
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let lines = text.lines().filter(|line| line.len() <= LINE_BYTES_MAX);
        for (name, sample) in lines.filter_map(sample).take(SAMPLES_MAX) {
            page.samples.entry(name).or_default().push(sample);
        }
        page
    }

    /// All samples of this name.
    pub(super) fn all(&self, name: &str) -> &[Sample] {
        self.samples.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of the first sample with this name and these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.all(name).iter().find(|sample| sample.is(labels)).map(|sample| sample.value)
    }

    /// A histogram of this name: what all samples with these labels come to together.
    pub(super) fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let of = |suffix: &str| self.all(&format!("{name}{suffix}")).iter();
        let mut histogram = Histogram::default();
        for sample in of("_bucket").filter(|sample| sample.is(labels)) {
            let Some(bound) = sample.label("le").and_then(number) else { continue };
            match histogram.buckets.iter_mut().find(|(it, _)| it.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += sample.value,
                None => histogram.buckets.push((bound, sample.value)),
            }
        }
        histogram.buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        histogram.sum = of("_sum").filter(|it| it.is(labels)).map(|it| it.value).sum();
        histogram
    }
}

/// How many values there were up to each bound, ascending, the last of them infinite; and their sum.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Histogram {
    buckets: Vec<(f64, f64)>,
    sum: f64,
}

/// Where a share of the values lies below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Quantile {
    /// There are no values.
    Unknown,
    /// Below the first bound, which is this: more is not known.
    Below(f64),
    At(f64),
    /// Above the last bound, which is this.
    Above(f64),
}

impl Histogram {
    /// What came to it since `before`. One that began anew has everything since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let is_next = before.count() <= self.count();
        let earlier = |bound: f64| {
            let same = before.buckets.iter().find(|(it, _)| it.total_cmp(&bound).is_eq());
            same.filter(|_| is_next).map_or(0.0, |(_, count)| *count)
        };
        let buckets = self.buckets.iter();
        Self {
            buckets: buckets.map(|(bound, count)| (*bound, count - earlier(*bound))).collect(),
            sum: if is_next { self.sum - before.sum } else { self.sum },
        }
    }

    pub(super) fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count() > 0.0).then(|| self.sum / self.count())
    }

    /// The value below which this share of them lies, taken to be spread evenly within a bucket.
    pub(super) fn quantile(&self, share: f64) -> Quantile {
        let wanted = self.count() * share;
        if wanted.is_nan() || wanted <= 0.0 {
            return Quantile::Unknown;
        }
        let mut below = (0.0, 0.0);
        for (at, (bound, count)) in self.buckets.iter().copied().enumerate() {
            if count < wanted {
                below = (bound, count);
                continue;
            }
            return match at {
                _ if bound.is_infinite() => Quantile::Above(below.0),
                0 => Quantile::Below(bound),
                _ => Quantile::At(
                    below.0 + (bound - below.0) * (wanted - below.1) / (count - below.1),
                ),
            };
        }
        Quantile::Unknown
    }
}

/// A line's sample; `None` for a comment, and for what is none.
fn sample(line: &str) -> Option<(String, Sample)> {
    let line = line.trim();
    let name_length = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))?;
    let (name, rest) = line.split_at(name_length);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // A time may stand after the value.
    let value = number(rest.split_ascii_whitespace().next()?)?;
    (!name.is_empty()).then(|| (name.to_owned(), Sample { labels, value }))
}

type Labels = Vec<(String, String)>;

/// The labels before a `}`, and what stands after it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        if labels.len() == LABELS_MAX {
            return None;
        }
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// The text up to the next quote, and what stands after that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// A value, if it is a number that can be reckoned with.
fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| !number.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_our_own_is_read_as_it_was_written() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total 5\n\
                    b{method=\"A/B\",status=\"OK\"} 1.5\nb{method=\"C\",status=\"a\\\"\\\\\\n}\"} -2\n";
        let page = Page::parse(text);
        assert_eq!(page.value("a_total", &[]), Some(5.0));
        assert_eq!(page.value("b", &[("status", "OK")]), Some(1.5));
        assert_eq!(page.value("b", &[("method", "C"), ("status", "a\"\\\n}")]), Some(-2.0));
        assert_eq!(page.value("b", &[("status", "none")]), None);
        assert_eq!(page.all("b").len(), 2);
    }

    #[test]
    fn what_is_no_page_is_passed_over() {
        for line in [
            "",
            "a",
            "a ",
            "{} 1",
            "a{ 1",
            "a{b} 1",
            "a{b=\"} 1",
            "a{b=\"\\",
            "a{b=\"c\"",
            "a x",
            "a NaN",
            "é 1",
            "<html> 1",
            &format!("a{{{}}} 1", "b=\"c\",".repeat(LABELS_MAX + 1)),
            &format!("a {}1", " ".repeat(LINE_BYTES_MAX)),
        ] {
            assert_eq!(Page::parse(line), Page::default(), "{line:?}");
        }
        let page = Page::parse(&"a 1\n".repeat(SAMPLES_MAX + 1));
        assert_eq!(page.all("a").len(), SAMPLES_MAX);
        assert_eq!(Page::parse("a +Inf 123").value("a", &[]), Some(f64::INFINITY));
    }

    fn histogram(buckets: &[(&str, u32)], sum: u32) -> Histogram {
        let line = |(bound, count)| format!("h_bucket{{le=\"{bound}\"}} {count}\n");
        let buckets: String = buckets.iter().copied().map(line).collect();
        Page::parse(&format!("h_sum {sum}\n{buckets}")).histogram("h", &[])
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let shown = histogram(&[("+Inf", 100), ("1", 10), ("2", 90)], 150);
        assert_eq!(shown.quantile(0.05), Quantile::Below(1.0));
        assert_eq!(shown.quantile(0.5), Quantile::At(1.5));
        assert_eq!(shown.quantile(0.99), Quantile::Above(2.0));
        assert_eq!(shown.mean(), Some(1.5));
        for empty in [Histogram::default(), histogram(&[("1", 0), ("+Inf", 0)], 0)] {
            assert_eq!((empty.quantile(0.5), empty.mean()), (Quantile::Unknown, None));
        }
    }

    #[test]
    fn what_came_since_is_told_and_all_of_it_after_a_start() {
        let before = histogram(&[("1", 10), ("+Inf", 20)], 30);
        let after = histogram(&[("1", 15), ("+Inf", 26)], 40);
        let since = after.since(&before);
        assert_eq!(since, histogram(&[("1", 5), ("+Inf", 6)], 10));
        assert_eq!(before.since(&after), before, "it began anew");
        assert_eq!(after.since(&Histogram::default()), after);
    }

    #[test]
    fn histograms_of_many_labels_are_added_up() {
        let page = Page::parse(
            "h_bucket{m=\"a\",le=\"1\"} 1\nh_bucket{m=\"a\",le=\"+Inf\"} 2\n\
             h_bucket{m=\"b\",le=\"1\"} 3\nh_bucket{m=\"b\",le=\"+Inf\"} 5\n\
             h_sum{m=\"a\"} 1\nh_sum{m=\"b\"} 2\n",
        );
        assert_eq!(page.histogram("h", &[]), histogram(&[("1", 4), ("+Inf", 7)], 3));
        assert_eq!(page.histogram("h", &[("m", "b")]), histogram(&[("1", 3), ("+Inf", 5)], 2));
    }
}
