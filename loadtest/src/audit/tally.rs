//! What the books of several processes amount to together.

use crate::report::AuditReport;

/// One report of several processes' reports.
pub fn merge(reports: &[AuditReport]) -> AuditReport {
    reports.first().cloned().unwrap_or_default()
}
