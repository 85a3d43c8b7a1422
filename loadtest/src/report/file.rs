//! Reports as files. Called by `loadtest merge` and by whoever ends a run.
//!
//! A file is somebody else's: after [`read`], everything in the report can be decoded.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Report, VERSION};

/// Reads a report that [`write()`] wrote.
pub fn read(path: &Path) -> anyhow::Result<Report> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{}", path.display()))
}

/// Writes a report as one line of JSON.
pub fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(report)?;
    bytes.push(b'\n');
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// A report from its JSON.
pub fn parse(bytes: &[u8]) -> anyhow::Result<Report> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(bytes).context("not a loadtest report")?;
    if head.version > VERSION {
        bail!("made by a newer loadtest: report version {}, and this one reads {VERSION}", head.version);
    }
    let report: Report = serde_json::from_slice(bytes).context("not a whole loadtest report")?;
    let rows = report.series.rows.iter().map(|row| &row.latencies);
    for text in rows.chain([&report.latencies]).flat_map(|latencies| latencies.values()) {
        text.decode()?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Latency;
    use crate::report::Compressed;
    use crate::report::sample::{Story, sample};

    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut value = serde_json::to_value(sample(Story::Passed)).unwrap();
        change(&mut value);
        format!("{:#}", parse(&serde_json::to_vec(&value).unwrap()).unwrap_err())
    }

    #[test]
    fn a_written_report_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let report = sample(Story::Failed);
        write(&path, &report).unwrap();
        assert_eq!(read(&path).unwrap(), report);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let missing = format!("{:#}", read(Path::new("/nowhere/report.json")).unwrap_err());
        assert!(missing.starts_with("cannot read /nowhere/report.json"), "{missing}");
        assert!(write(Path::new("/nowhere/report.json"), &sample(Story::Passed)).is_err());
        assert!(format!("{:#}", parse(b"{}").unwrap_err()).starts_with("not a loadtest report"));
        assert!(format!("{:#}", parse(b"{\"version\":1}").unwrap_err()).starts_with("not a whole loadtest report"));
    }

    #[test]
    fn a_newer_report_says_so() {
        let error = refused(|value| value["version"] = 99.into());
        assert_eq!(error, "made by a newer loadtest: report version 99, and this one reads 1");
    }

    #[test]
    fn damaged_histograms_are_found_wherever_they_are() {
        assert!(refused(|value| value["latencies"]["ack"] = "AAAA".into()).contains("histogram"));
        assert!(refused(|value| value["series"]["rows"][20]["latencies"]["ack"] = "%".into()).contains("base64"));
        let mut report = sample(Story::Passed);
        report.latencies.insert(Latency::Ack, Compressed(String::new()));
        assert!(parse(&serde_json::to_vec(&report).unwrap()).is_err());
    }
}
