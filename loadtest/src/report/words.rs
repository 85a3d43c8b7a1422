//! Figures as people read them: `1.2 ms`, `34k/s`, `1.3 GiB`. Called by everything that shows a report, on paper or in a
//! terminal.

/// Three significant digits at most, and no zeros behind the point.
pub fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.0995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `950`, `34k`, `1.2M`.
pub fn amount(value: f64) -> String {
    let size = value.abs();
    if size >= 999_500_000.0 {
        format!("{}G", short(value / 1e9))
    } else if size >= 999_500.0 {
        format!("{}M", short(value / 1e6))
    } else if size >= 9_999.5 {
        format!("{}k", short(value / 1e3))
    } else if size >= 999.5 {
        grouped(value.round() as u64)
    } else {
        short(value)
    }
}

/// `1 234 567`, with spaces that do not break.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `34k/s`.
pub fn rate(value: f64) -> String {
    format!("{}/s", amount(value))
}

/// Microseconds: `850 µs`, `1.2 ms`, `3.4 s`, `2 min 5 s`.
pub fn latency(us: f64) -> String {
    if us >= 119_500_000.0 {
        duration(us / 1e6)
    } else if us >= 999_500.0 {
        format!("{} s", short(us / 1e6))
    } else if us >= 999.5 {
        format!("{} ms", short(us / 1e3))
    } else {
        format!("{} µs", short(us))
    }
}

/// Bytes: `512 B`, `14 KiB`, `1.3 GiB`.
pub fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1023.5 {
            return format!("{} {unit}", short(value));
        }
        value /= 1024.0;
    }
    format!("{} TiB", short(value))
}

/// Seconds: `0 s`, `90 s`, `2 min 5 s`, `1 h 30 min`; its two largest parts.
pub fn duration(seconds: f64) -> String {
    let sign = if seconds <= -0.05 { "\u{2212}" } else { "" };
    if seconds.abs() < 9.95 && (seconds - seconds.round()).abs() > 0.05 {
        return format!("{sign}{} s", short((seconds.abs() * 10.0).round() / 10.0));
    }
    let whole = seconds.abs().round() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let parts: Vec<String> = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
        .into_iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if parts.is_empty() { "0 s".to_owned() } else { format!("{sign}{}", parts.join(" ")) }
}

/// What servers and files say must not steer the terminal.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 300;
    text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_at_most_three_digits_and_a_unit() {
        assert_eq!(latency(0.0), "0 µs");
        assert_eq!(latency(850.0), "850 µs");
        assert_eq!(latency(999.9), "1 ms");
        assert_eq!(latency(1_234.0), "1.23 ms");
        assert_eq!(latency(3_400_000.0), "3.4 s");
        assert_eq!(latency(125_000_000.0), "2 min 5 s");
        assert_eq!(rate(34_049.0), "34k/s");
        assert_eq!(rate(34_100.0), "34.1k/s");
        assert_eq!(amount(1_200_000.0), "1.2M");
        assert_eq!(amount(4_000.0), "4\u{202f}000");
        assert_eq!(bytes(1.3 * 1024.0 * 1024.0 * 1024.0), "1.3 GiB");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(123), "123");
    }

    #[test]
    fn durations_name_their_two_largest_parts() {
        assert_eq!(duration(0.0), "0 s");
        assert_eq!(duration(10.0), "10 s");
        assert_eq!(duration(-20.0), "\u{2212}20 s");
        assert_eq!(duration(2.5), "2.5 s");
        assert_eq!(duration(-0.3), "\u{2212}0.3 s");
        assert_eq!(duration(-0.01), "0 s");
        assert_eq!(duration(60.0), "1 min");
        assert_eq!(duration(5400.0), "1 h 30 min");
        assert_eq!(duration(3601.0), "1 h");
        assert_eq!(duration(90_000.0), "1 d 1 h");
    }
}
