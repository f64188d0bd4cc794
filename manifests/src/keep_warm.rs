//! `knarr.dev/keep-warm`: hours of the week in which at least one replica stays, in the time of a place.
//!
//! ```text
//! Mon-Fri 07:00-23:00 Europe/Oslo, Sat 10:00-14:00     days, from-to, zone; a window without a zone has its neighbour's
//! ```
//!
//! Hours are those of the wall clock there: where it is put back, an hour passes twice; one that is skipped begins when the
//! clock has jumped over it. PURE: the zones come with the program (the IANA database), not from the host.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::nearest;
use crate::units::Timestamp;

/// Windows that come again every week.
#[derive(Clone, PartialEq, Debug)]
pub struct KeepWarm {
    text: Arc<str>,
    windows: Arc<[Window]>,
}

#[derive(Clone, PartialEq, Debug)]
struct Window {
    /// Monday is the lowest bit.
    days: u8,
    /// Minutes of the day.
    from: u16,
    /// Minutes from the same midnight, more than `from`; past 1440 on the next day.
    to: u16,
    zone: TimeZone,
}

/// The text names no hours of the week: what is wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid value: {text}: {fault}")]
pub struct NotHours {
    text: String,
    fault: String,
}

impl KeepWarm {
    /// Whether it is open at `now`, and until when that stays so. Looked at again after eight days at the latest, however
    /// long it stays.
    pub fn open(&self, now: Timestamp) -> (bool, Timestamp) {
        let mut spans: Vec<(Timestamp, Timestamp)> = self.windows.iter().flat_map(|window| window.spans(now)).collect();
        spans.sort_unstable();
        let horizon = now.plus(HORIZON);
        let mut open_until = None;
        for (from, to) in spans {
            let reached = open_until.unwrap_or(now);
            if to <= reached {
                continue;
            }
            if from > reached {
                let next = open_until.unwrap_or(from);
                return (open_until.is_some(), next.min(horizon));
            }
            open_until = Some(to);
        }
        (open_until.is_some(), open_until.unwrap_or(horizon).min(horizon))
    }
}

impl Window {
    /// Every time it is open from a day before `now` on, for ten days.
    fn spans(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let Ok(instant) = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())) else {
            return Vec::new();
        };
        let today = self.zone.to_datetime(instant).date();
        let mut day = today.yesterday().ok();
        let mut spans = Vec::new();
        for _ in 0..SPAN_DAYS {
            let Some(date) = day else { break };
            if self.days & bit(date.weekday()) != 0
                && let (Some(from), Some(to)) = (self.instant(date, self.from), self.instant(date, self.to))
                && from < to
            {
                spans.push((from, to));
            }
            day = date.tomorrow().ok();
        }
        spans
    }

    /// That many minutes after midnight by the wall clock.
    fn instant(&self, date: Date, minutes: u16) -> Option<Timestamp> {
        let date = if minutes >= DAY { date.tomorrow().ok()? } else { date };
        let minutes = minutes % DAY;
        let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
        let instant = self.zone.to_timestamp(date.at(hour, minute, 0, 0)).ok()?;
        // Before the epoch nothing is asked for.
        Some(Timestamp::from_nanos(
            u64::try_from(instant.as_nanosecond()).unwrap_or(0),
        ))
    }
}

impl fmt::Display for KeepWarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KeepWarm {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Self, NotHours> {
        let windows = parse(text).map_err(|fault| NotHours {
            text: text.to_owned(),
            fault,
        })?;
        Ok(Self {
            text: text.trim().into(),
            windows: windows.into(),
        })
    }
}

fn parse(text: &str) -> Result<Vec<Window>, String> {
    let zones = TimeZoneDatabase::bundled();
    let mut read: Vec<(u8, u16, u16, Option<TimeZone>)> = Vec::new();
    // Of parts that name days only, as in `Mon, Wed 08:00-12:00`.
    let mut days_before = 0;
    for part in text.split([',', ';']) {
        let mut words = part.split_whitespace().peekable();
        let mut days = 0;
        while let Some(found) = words.peek().and_then(|word| parse_days(word)) {
            days |= found?;
            words.next();
        }
        let Some(hours) = words.next() else {
            if days == 0 {
                return Err("a window is empty".to_owned());
            }
            days_before |= days;
            continue;
        };
        let (from, to) = parse_hours(hours)?;
        let zone = words.next().map(|name| zone(&zones, name)).transpose()?;
        if let Some(word) = words.next() {
            return Err(format!("`{word}` stands behind the time zone"));
        }
        let days = match days | days_before {
            0 => EVERY_DAY,
            days => days,
        };
        days_before = 0;
        read.push((days, from, to, zone));
    }
    if days_before != 0 {
        return Err("the last days have no hours".to_owned());
    }
    if read.len() > MOST {
        return Err(format!("more than {MOST} windows"));
    }
    Ok(with_zones(read))
}

/// A window without a zone has that of the next one that has one, else of the one before, else UTC.
fn with_zones(read: Vec<(u8, u16, u16, Option<TimeZone>)>) -> Vec<Window> {
    let zones: Vec<Option<TimeZone>> = read.iter().map(|(.., zone)| zone.clone()).collect();
    let window = |(nth, (days, from, to, _)): (usize, (u8, u16, u16, Option<TimeZone>))| {
        let (before, after) = zones.split_at(nth);
        let mut near = after.iter().chain(before.iter().rev()).flatten();
        Window {
            days,
            from,
            to,
            zone: near.next().cloned().unwrap_or(TimeZone::UTC),
        }
    };
    read.into_iter().enumerate().map(window).collect()
}

/// `None` when the word does not begin as a day does: then it is hours.
fn parse_days(word: &str) -> Option<Result<u8, String>> {
    if !word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let day = |name: &str| {
        let short = name.get(..3).unwrap_or(name);
        let found = DAYS.iter().position(|(day, whole)| {
            name.eq_ignore_ascii_case(day) || (day.eq_ignore_ascii_case(short) && name.eq_ignore_ascii_case(whole))
        });
        found.ok_or_else(|| format!("`{name}` is not a day, Mon to Sun"))
    };
    let days = |word: &str| {
        let Some((first, last)) = word.split_once('-') else {
            return day(word).map(|day| 1 << day);
        };
        let (first, last) = (day(first)?, day(last)?);
        let length = (last + 7 - first) % 7;
        Ok((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7)))
    };
    Some(days(word))
}

fn parse_hours(word: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{word}` is not hours such as 07:00-23:00");
    let (from, to) = word.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (
        parse_minutes(from).ok_or_else(wrong)?,
        parse_minutes(to).ok_or_else(wrong)?,
    );
    if from == DAY {
        return Err(format!("`{word}` begins at 24:00; write 00:00"));
    }
    if from == to {
        return Err(format!("`{word}` is empty; a whole day is 00:00-24:00"));
    }
    Ok((from, if to < from { to + DAY } else { to }))
}

/// `07:30`, up to `24:00`.
fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>, most: u16| {
        let fits = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: u16 = text.parse().ok().filter(|_| fits)?;
        (number <= most).then_some(number)
    };
    let minutes = number(hours, 1..=2, 24)? * 60 + number(minutes, 2..=2, 59)?;
    (minutes <= DAY).then_some(minutes)
}

fn zone(zones: &TimeZoneDatabase, name: &str) -> Result<TimeZone, String> {
    zones.get(name).map_err(|_| {
        let names: Vec<String> = zones.available().map(|name| name.to_string()).collect();
        // Most know the city and not the continent.
        let city = |whole: &str| whole.rsplit('/').next().unwrap_or(whole).to_ascii_lowercase();
        let same_city = names.iter().find(|whole| city(whole) == city(name));
        let near = same_city.map(String::as_str);
        match near.or_else(|| nearest(name, names.iter().map(String::as_str))) {
            Some(near) => format!("`{name}` is not a time zone; did you mean {near}?"),
            None => format!("`{name}` is not a time zone; write one as in Europe/Oslo, or UTC"),
        }
    })
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

const DAYS: [(&str, &str); 7] = [
    ("Mon", "Monday"),
    ("Tue", "Tuesday"),
    ("Wed", "Wednesday"),
    ("Thu", "Thursday"),
    ("Fri", "Friday"),
    ("Sat", "Saturday"),
    ("Sun", "Sunday"),
];
const EVERY_DAY: u8 = 0x7f;
/// Minutes.
const DAY: u16 = 1440;
/// Most windows of one revision.
const MOST: usize = 32;
/// A day before, and a week and a day after.
const SPAN_DAYS: usize = 10;
/// No answer holds longer; every window has come round by then.
const HORIZON: Duration = Duration::from_secs(8 * 86_400);

#[cfg(test)]
mod tests;
