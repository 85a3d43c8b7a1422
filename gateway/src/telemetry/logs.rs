//! The log on stderr: one event, one line, whatever users put into it. Set up once by main.
//!
//! Display names, headers and payloads of strangers end up in fields. A line break in them could forge an event, an
//! escape sequence could act on the terminal of whoever reads the log. The formatters below escape some of that, not all
//! (line breaks in pretty lines, C1 in JSON), so the last step before stderr escapes the rest.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, target, message, fields: for people.
    Pretty,
    /// One JSON object: `timestamp`, `level`, `target`, `message` and the event's fields, side by side.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "--log (ROOMCAST_LOG) is {filter:?}: expected a filter such as info or warn,roomcast_gateway=debug: {problem}"
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The process logs somewhere else already.
    #[error("the log is set up already")]
    Twice,
}

/// Sends the process's events to stderr from now on, panics included: those carry text of strangers, too.
///
/// # Errors
///
/// A filter that cannot be read, or a second call in one process.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    let subscriber = subscriber(format, filter, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    // Only there if RUST_BACKTRACE asks for it.
    let is_captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| tracing::field::display(backtrace));
    tracing::error!(text = message, place, thread = thread.name(), backtrace, "panic");
}

fn subscriber<W>(format: Format, filter: &str, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), problem: error.to_string() })?;
    // Colours would be the only control characters that are ours: without them, all of them are strangers'.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Escaped(writer));
    Ok(match format {
        Format::Pretty => Box::new(lines.finish()),
        Format::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    })
}

/// Makes writers that escape.
struct Escaped<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaped<W> {
    type Writer = EscapedLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedLine(self.0.make_writer())
    }
}

/// Takes one whole line per `write`, as the formatter hands it over.
struct EscapedLine<W>(W);

impl<W: Write> Write for EscapedLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match escape(line) {
            // One call, so that lines of several threads do not mix.
            Some(escaped) => self.0.write_all(escaped.as_bytes())?,
            None => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The line with every control character but its last line break written as an escape that JSON reads, too; none if
/// there is nothing to do.
fn escape(line: &[u8]) -> Option<String> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    let text = String::from_utf8_lossy(body);
    if !text.contains(is_unsafe) {
        return None;
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_unsafe(c) => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped.push('\n');
    Some(escaped)
}

/// Control characters, and what breaks or reorders a line: separators and bidirectional overrides.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOSTILE: &str = "a\nINFO forged\r\t\u{1b}[31mred\u{7f}\u{9b}x\u{202e}\u{2028}\0 \"q\" \\";

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).expect("valid filter");
        tracing::subscriber::with_default(subscriber, log);
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn hostile_events() {
        let error = io::Error::other(HOSTILE);
        let span = tracing::info_span!("session", name = %HOSTILE);
        let _entered = span.enter();
        tracing::info!(name = HOSTILE, shown = %HOSTILE, debugged = ?HOSTILE, error = &error as &dyn std::error::Error, "{HOSTILE}");
        tracing::warn!(count = 3_u64, "second");
    }

    #[test]
    fn nobody_forges_a_line_or_reaches_the_terminal() {
        for format in [Format::Pretty, Format::Json] {
            let text = logged(format, "info", hostile_events);
            assert_eq!(text.lines().count(), 2, "{text}");
            let unsafe_characters = text.chars().filter(|&c| is_unsafe(c)).count();
            assert_eq!(unsafe_characters, 2, "the two line ends only: {text:?}");
        }
    }

    #[test]
    fn json_lines_are_objects_that_keep_the_text() {
        let text = logged(Format::Json, "info", hostile_events);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["message"], HOSTILE);
        assert_eq!(lines[0]["name"], HOSTILE);
        assert_eq!((&lines[1]["level"], &lines[1]["count"]), (&"WARN".into(), &3.into()));
        assert!(lines[1]["timestamp"].is_string() && lines[1]["target"].is_string());
    }

    #[test]
    fn the_filter_holds_and_is_checked() {
        let text = logged(Format::Pretty, "warn", || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
        let error = subscriber(Format::Pretty, "a=b=c", io::sink).err().expect("refused");
        assert!(error.to_string().contains("--log") && error.to_string().contains("a=b=c"), "{error}");
    }
}
