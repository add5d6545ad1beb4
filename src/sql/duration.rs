//! Durations as people write them, in a plan and in a file: `4s`, `500ms`, `2m`, `1h`, `0`.

use std::time::Duration;

/// How to write one.
pub const HELP: &str = "Write a whole number and `ms`, `s`, `m` or `h`, as in `4s`, up to 24 days.";

/// PostgreSQL keeps these settings as milliseconds in 31 bits.
const LONGEST_MS: u64 = i32::MAX as u64;

/// The duration, or none if the text is not one that PostgreSQL can keep.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if text == "0" => 1,
        _ => return None,
    };
    let ms = text[..digits].parse::<u64>().ok()?.checked_mul(unit)?;
    (ms <= LONGEST_MS).then(|| Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let ms = |text| parse(text).map(|it| it.as_millis());
        assert_eq!(
            (ms("500ms"), ms("4s"), ms("2m"), ms("1h")),
            (Some(500), Some(4000), Some(120_000), Some(3_600_000))
        );
        assert_eq!((ms("0"), ms("0s"), ms("596h")), (Some(0), Some(0), Some(2_145_600_000)));
        for bad in ["", "4", "s", "4 s", "-1s", "1.5s", "4S", "4s ", "597h", "99999999999999999999ms"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
