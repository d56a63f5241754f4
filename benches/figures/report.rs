//! What was measured: a table for people, JSON for programs.

use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// The value, at most.
    Value(f64),
    /// The ratio to the anchor, at most.
    RatioAtMost(f64),
    /// The ratio to the anchor, at least.
    RatioAtLeast(f64),
}

/// One figure.
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What it is compared with, and that one's value in the same unit;
    /// `None` for the value where the anchor could not be run.
    pub anchor: Option<(String, Option<f64>)>,
    pub limit: Limit,
}

impl Figure {
    fn anchor_value(&self) -> Option<f64> {
        self.anchor.as_ref().and_then(|(_, value)| *value)
    }

    fn ratio(&self) -> Option<f64> {
        self.anchor_value().map(|anchor| self.value / anchor)
    }

    /// Whether it keeps its limit; `None` where that is not known.
    fn kept(&self) -> Option<bool> {
        match self.limit {
            Limit::Value(limit) => Some(self.value <= limit),
            Limit::RatioAtMost(limit) => self.ratio().map(|r| r <= limit),
            Limit::RatioAtLeast(limit) => self.ratio().map(|r| r >= limit),
        }
    }
}

/// Everything that was measured in one run.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Report {
    /// A figure.
    pub fn add(&mut self, figure: Figure) {
        println!("  {} {:.2} {}", figure.name, figure.value, figure.unit);
        self.figures.push(figure);
    }

    /// Something beside the figures: parts of them, what was not run, and why.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("  {text}");
        self.notes.push(text);
    }

    /// Prints the table and writes the file.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["figure", "value", "anchor", "its value", "ratio", "limit", ""]);
        for figure in &self.figures {
            let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
            table.add_row([
                figure.name.to_owned(),
                format!("{:.2} {}", figure.value, figure.unit),
                figure.anchor.as_ref().map_or_else(|| "–".to_owned(), |(name, _)| name.clone()),
                number(figure.anchor_value()),
                number(figure.ratio()),
                match figure.limit {
                    Limit::Value(limit) => format!("≤ {limit} {}", figure.unit),
                    Limit::RatioAtMost(limit) => format!("ratio ≤ {limit}"),
                    Limit::RatioAtLeast(limit) => format!("ratio ≥ {limit}"),
                },
                match figure.kept() {
                    Some(true) => "kept".to_owned(),
                    Some(false) => "MISSED".to_owned(),
                    None => "not known".to_owned(),
                },
            ]);
        }
        let mut text = format!("\n{table}\n");
        for note in &self.notes {
            let _ = writeln!(text, "· {note}");
        }
        println!("{text}");
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let all: Vec<_> = self
            .figures
            .iter()
            .map(|f| {
                json!({
                    "name": f.name, "value": rounded(f.value), "unit": f.unit,
                    "anchor": f.anchor.as_ref().map(|(name, _)| name),
                    "anchor_value": f.anchor_value().map(rounded), "ratio": f.ratio().map(rounded),
                })
            })
            .collect();
        // The directory beside the one for temporary files is the target's own.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("bench");
        std::fs::create_dir_all(&target)?;
        let path = target.join("figures.json");
        std::fs::write(&path, format!("{:#}\n", serde_json::Value::Array(all)))?;
        println!("written to {}", path.display());
        Ok(())
    }
}

/// The value below which that part of the samples lies.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// The median.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Milliseconds since then.
pub fn milliseconds(since: std::time::Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
