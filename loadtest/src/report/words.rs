//! Figures as people read them. Called by everything that prints a report.

/// A time in microseconds, with three digits: `812us`, `1.45ms`, `23.1ms`, `1.50s`, `2m05s`.
pub fn micros(us: f64) -> String {
    if us < 999.5 {
        format!("{us:.0}us")
    } else if us < 999_500.0 {
        format!("{}ms", three_digits(us / 1e3))
    } else if us < 119_500_000.0 {
        format!("{}s", three_digits(us / 1e6))
    } else {
        let seconds = (us / 1e6).round() as u64;
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// A number with its thousands: `840`, `12.4k`, `4.48M`, `1.96G`.
pub fn quantity(number: f64) -> String {
    if number < 9999.5 {
        if number.fract() == 0.0 || number >= 999.5 { format!("{number:.0}") } else { three_digits(number) }
    } else if number < 999_500.0 {
        format!("{}k", three_digits(number / 1e3))
    } else if number < 999_500_000.0 {
        format!("{}M", three_digits(number / 1e6))
    } else {
        format!("{}G", three_digits(number / 1e9))
    }
}

/// A whole number, its thousands apart: `4 475 564`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes: `912 B`, `27.0 MiB`.
pub fn bytes(number: f64) -> String {
    match number {
        number if number < 1024.0 => format!("{number:.0} B"),
        number if number < 1_048_576.0 => format!("{} KiB", three_digits(number / 1024.0)),
        number if number < 1_073_741_824.0 => format!("{} MiB", three_digits(number / 1_048_576.0)),
        number => format!("{} GiB", three_digits(number / 1_073_741_824.0)),
    }
}

/// A length of time in milliseconds: `12.3s`, `5m03s`, `2h05m`.
pub fn length_ms(ms: u64) -> String {
    let seconds = ms / 1000 + u64::from(ms % 1000 >= 500);
    match ms {
        ms if ms < 119_500 => format!("{:.1}s", ms as f64 / 1000.0),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let read = [0.0, 812.0, 999.6, 1450.0, 23_100.0, 999_600.0, 1.5e6, 125e6, 3.6e9].map(micros);
        assert_eq!(read, ["0us", "812us", "1.00ms", "1.45ms", "23.1ms", "1.00s", "1.50s", "2m05s", "60m00s"]);
    }

    #[test]
    fn quantities() {
        let read = [0.0, 20.0, 0.5, 840.0, 3955.4, 12_400.0, 999_600.0, 4.476e6, 1.956e9].map(quantity);
        assert_eq!(read, ["0", "20", "0.50", "840", "3955", "12.4k", "1.00M", "4.48M", "1.96G"]);
        assert_eq!([0, 999, 1000, 4_475_564].map(grouped), ["0", "999", "1 000", "4 475 564"]);
        assert_eq!(
            [912.0, 2048.0, 28_311_552.0, 17_179_869_184.0].map(bytes),
            ["912 B", "2.00 KiB", "27.0 MiB", "16.0 GiB"]
        );
        assert_eq!([0, 12_340, 303_000, 7_500_000].map(length_ms), ["0.0s", "12.3s", "5m03s", "2h05m"]);
    }
}
