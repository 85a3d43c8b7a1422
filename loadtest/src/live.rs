//! Progress on the terminal while a run goes on: one bar that is redrawn, or plain lines where nobody watches.
//!
//! Told by the engine, through the app, what goes on; knows of the run only what it is told. Writes to stderr only:
//! stdout is the summary's.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::record::Count;
use crate::report::words;
use crate::report::{Finding, Happening, HappeningKind, Live};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// What shows a run's progress. Dropped or finished, it leaves no bar behind.
pub struct LiveDisplay<'a> {
    output: Output<'a>,
    phase: Phase,
    /// Clients of this process.
    clients: u64,
}

enum Output<'a> {
    Bar {
        bar: ProgressBar,
        colours: bool,
    },
    /// The last line's time.
    Lines {
        out: Box<dyn Write + 'a>,
        last: Option<Instant>,
    },
}

struct Phase {
    name: String,
    began: Instant,
    expected: Option<Duration>,
}

impl<'a> LiveDisplay<'a> {
    /// On stderr: a bar if that is a terminal, else a plain line every few seconds. `clients` are this process's.
    pub fn new(terminal: bool, clients: u64) -> Self {
        if !terminal {
            return Self::lines(Box::new(std::io::stderr()), clients);
        }
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::bar(ProgressDrawTarget::stderr_with_hz(8), colours, clients)
    }

    /// Plain lines to somewhere else.
    pub fn lines(out: Box<dyn Write + 'a>, clients: u64) -> Self {
        Self { output: Output::Lines { out, last: None }, phase: Phase::new("", None), clients }
    }

    fn bar(target: ProgressDrawTarget, colours: bool, clients: u64) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        Self { output: Output::Bar { bar, colours }, phase: Phase::new("", None), clients }
    }

    /// A part of the run begins; `expected` is how long it will take, if that is known.
    pub fn phase(&mut self, name: &str, expected: Option<Duration>) {
        self.phase = Phase::new(name, expected);
        match &mut self.output {
            Output::Bar { bar, colours } => {
                let length = if self.phase.is_connecting() { Some(self.clients) } else { self.phase.expected_ms() };
                bar.set_style(style(length.is_some(), *colours));
                bar.reset();
                bar.set_length(length.unwrap_or_default().max(1));
                bar.set_prefix(name.to_owned());
                bar.set_message(self.phase.progress(0, self.clients));
                bar.force_draw();
            }
            Output::Lines { out, last } => {
                *last = None;
                let expected = expected.map(|time| format!(", {}", words::duration(time.as_secs_f64())));
                write_line(out, &format!("{name}{}", expected.unwrap_or_default()));
            }
        }
    }

    /// How the run is doing; about once a second.
    pub fn update(&mut self, live: &Live) {
        match &mut self.output {
            Output::Bar { bar, colours } => {
                if self.phase.is_connecting() {
                    bar.set_position(live.total(Count::Connected).min(self.clients));
                } else if let Some(expected) = self.phase.expected_ms() {
                    bar.set_position((self.phase.began.elapsed().as_millis() as u64).min(expected));
                }
                let progress = self.phase.progress(live.total(Count::Connected), self.clients);
                let figures = words(&self.phase, live, self.clients, *colours);
                bar.set_message(format!("{progress}\n{figures}"));
                // Each change asks to be drawn, and the library leaves out some: not the last one, please.
                bar.force_draw();
            }
            Output::Lines { out, last } => {
                // The first figures of a phase say little; the first line comes after a while too.
                if last.unwrap_or(self.phase.began).elapsed() >= LINE_EVERY {
                    *last = Some(Instant::now());
                    let progress = self.phase.progress(live.total(Count::Connected), self.clients);
                    let figures = words(&self.phase, live, self.clients, false);
                    write_line(out, &format!("{} {progress}: {figures}", self.phase.name));
                }
            }
        }
    }

    /// An event of the timeline. Phases are left out: the display says itself which one it is.
    pub fn event(&mut self, event: &Happening) {
        if event.kind != HappeningKind::Phase {
            self.note(&event.text);
        }
    }

    /// Something that happened, in a line of its own that stays.
    pub fn note(&mut self, text: &str) {
        // A server's words may be in it, and a terminal obeys control characters.
        let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match &mut self.output {
            Output::Bar { bar, .. } => bar.println(text),
            Output::Lines { out, .. } => write_line(out, &text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Output::Bar { bar, .. } = &self.output {
            bar.finish_and_clear();
        }
    }
}

impl Drop for LiveDisplay<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Phase {
    fn new(name: &str, expected: Option<Duration>) -> Self {
        Self { name: name.to_owned(), began: Instant::now(), expected }
    }

    fn is_connecting(&self) -> bool {
        self.name == "connecting"
    }

    /// How far it is, in words.
    fn progress(&self, connected: u64, clients: u64) -> String {
        if self.is_connecting() {
            return format!("{} of {}", words::grouped(connected.min(clients)), words::grouped(clients));
        }
        let passed = words::duration(self.began.elapsed().as_secs_f64().floor());
        match self.expected {
            Some(expected) => format!("{passed} of {}", words::duration(expected.as_secs_f64())),
            None => passed,
        }
    }

    fn expected_ms(&self) -> Option<u64> {
        self.expected.map(|time| time.as_millis() as u64)
    }
}

/// Two lines: what part of the run it is and how far, and the figures.
fn style(has_length: bool, colours: bool) -> ProgressStyle {
    let template = match (has_length, colours) {
        (true, true) => "{prefix:.bold} {bar:30.cyan} {msg}",
        (true, false) => "{prefix} {bar:30} {msg}",
        (false, true) => "{prefix:.bold} {msg}",
        (false, false) => "{prefix} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

/// The figures in one line.
fn words(phase: &Phase, live: &Live, clients: u64, colours: bool) -> String {
    let mut parts = vec![format!("{} of {} connected", words::grouped(live.connections), words::grouped(clients))];
    if phase.is_connecting() {
        parts.clear();
        parts.push(format!("{} a second", words::amount(live.rate(Count::Connected))));
    } else {
        parts.push(format!("sent {}", words::rate(live.rate(Count::Sent))));
        parts.push(format!("received {}", words::rate(live.rate(Count::Received))));
        if let Some(delivery) = live.delivery {
            let (p50, p99) = (words::latency(delivery.p50_us as f64), words::latency(delivery.p99_us as f64));
            parts.push(format!("delivery p50 {p50}, p99 {p99}"));
        }
    }
    if live.errors() > 0 {
        parts.push(counted(live.errors(), "error"));
    }
    let mut words = parts.join(" · ");
    if live.violations() > 0 {
        let (on, off) = if colours { (RED, RESET) } else { ("", "") };
        words += &[" · ", on, &findings(live), off].concat();
    }
    words
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", words::grouped(count), if count == 1 { "" } else { "s" })
}

/// `3 lost, 1 duplicated`.
fn findings(live: &Live) -> String {
    let found = Finding::ALL.into_iter().filter_map(|finding| {
        let count = live.findings.get(&finding).copied().unwrap_or_default();
        (count > 0).then(|| format!("{} {}", words::grouped(count), finding.name().replace('_', " ")))
    });
    found.collect::<Vec<_>>().join(", ")
}

/// Progress is worth no failed run: a closed stderr is ignored.
fn write_line(out: &mut Box<dyn Write + '_>, text: &str) {
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::report::Percentiles;

    /// A terminal that remembers what was written.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }

        fn put(&self, text: &str) {
            self.0.lock().unwrap().push_str(text);
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            160
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.put(text);
            self.put("\n");
            Ok(())
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.put(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.put(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn live() -> Live {
        Live {
            connections: 3998,
            totals: BTreeMap::from([(Count::Connected, 4000), (Count::Disconnected, 2)]),
            per_second: BTreeMap::from([(Count::Sent, 4000.0), (Count::Received, 76_000.0)]),
            delivery: Some(Percentiles { p50_us: 720, p99_us: 3100 }),
            findings: BTreeMap::from([(Finding::Lost, 3)]),
            ..Live::default()
        }
    }

    fn on(screen: &Screen, colours: bool) -> LiveDisplay<'static> {
        LiveDisplay::bar(ProgressDrawTarget::term_like(Box::new(screen.clone())), colours, 4000)
    }

    #[test]
    fn the_bar_shows_how_far_and_how_fast() {
        let screen = Screen::default();
        let mut display = on(&screen, true);
        display.phase("load", Some(Duration::from_mins(1)));
        display.update(&live());
        drop(display);
        let text = screen.text();
        let line = "3\u{202f}998 of 4\u{202f}000 connected · sent 4\u{202f}000/s · received 76k/s · delivery p50 720 µs, \
                    p99 3.1 ms · 2 errors";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("0 s of 1 min"), "{text}");
        assert!(text.contains("\x1b[31m3 lost\x1b[0m"), "findings are red: {text}");
    }

    #[test]
    fn while_connecting_the_bar_counts_clients() {
        let screen = Screen::default();
        let mut display = on(&screen, false);
        display.phase("connecting", None);
        display.update(&live());
        drop(display);
        assert!(screen.text().contains("4\u{202f}000 of 4\u{202f}000"), "{}", screen.text());
        assert!(!screen.text().contains(RED));
    }

    #[test]
    fn notes_cannot_command_the_terminal() {
        let screen = Screen::default();
        let mut display = LiveDisplay::lines(Box::new(screen.clone()), 1);
        display.note("gone\x1b[2J\nand more");
        assert_eq!(screen.text(), "gone\u{fffd}[2J\u{fffd}and more\n");
    }

    #[test]
    fn without_a_terminal_a_phase_is_one_line_and_updates_are_few() {
        let screen = Screen::default();
        let mut display = LiveDisplay::lines(Box::new(screen.clone()), 4000);
        display.phase("load", Some(Duration::from_mins(1)));
        for _ in 0..100 {
            display.update(&live());
        }
        assert!(screen.text().starts_with("load, 1 min\n"));
        assert!(screen.text().lines().count() < 20, "far fewer lines than updates");
        let Output::Lines { last, .. } = &mut display.output else { panic!() };
        *last = Instant::now().checked_sub(LINE_EVERY);
        display.update(&live());
        assert!(screen.text().contains(": 3\u{202f}998 of 4\u{202f}000 connected"), "{}", screen.text());
        assert!(!screen.text().contains('\x1b'));
    }
}
