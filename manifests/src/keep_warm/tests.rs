use proptest::prelude::*;

use super::*;

/// RFC 3339 to our time.
fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_nanos(u64::try_from(instant.as_nanosecond()).unwrap())
}

fn read(text: &str) -> KeepWarm {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// (windows, now, open, until)
fn check(rows: &[(&str, &str, bool, &str)]) {
    for (text, now, open, until) in rows {
        let said = read(text).open(at(now));
        assert_eq!(said, (*open, at(until)), "{text} at {now}");
    }
}

#[test]
fn hours_of_a_place() {
    const OFFICE: &str = "Mon-Fri 07:00-23:00 Europe/Oslo";
    check(&[
        // 2026-11-20 is a Friday; Oslo is an hour ahead in winter.
        (OFFICE, "2026-11-20T05:59:59Z", false, "2026-11-20T06:00:00Z"),
        (OFFICE, "2026-11-20T06:00:00Z", true, "2026-11-20T22:00:00Z"),
        (OFFICE, "2026-11-20T21:59:59Z", true, "2026-11-20T22:00:00Z"),
        (OFFICE, "2026-11-20T22:00:00Z", false, "2026-11-23T06:00:00Z"),
        // Two hours ahead in summer.
        (OFFICE, "2026-07-10T05:00:00Z", true, "2026-07-10T21:00:00Z"),
        // Without a zone it is UTC; in any order and case, by whole names too.
        ("09:00-17:00", "2026-11-21T12:00:00Z", true, "2026-11-21T17:00:00Z"),
        (
            "sun wednesday 9:00-17:00",
            "2026-11-21T12:00:00Z",
            false,
            "2026-11-22T09:00:00Z",
        ),
        (
            "Mon, Wed, Fri 09:00-17:00",
            "2026-11-18T12:00:00Z",
            true,
            "2026-11-18T17:00:00Z",
        ),
        // Round the end of the week.
        (
            "Sat-Mon 09:00-17:00 UTC",
            "2026-11-23T09:00:00Z",
            true,
            "2026-11-23T17:00:00Z",
        ),
        // Past midnight: the days are those on which it begins.
        (
            "Fri 22:00-06:00 UTC",
            "2026-11-21T05:59:00Z",
            true,
            "2026-11-21T06:00:00Z",
        ),
        (
            "Fri 22:00-06:00 UTC",
            "2026-11-20T05:59:00Z",
            false,
            "2026-11-20T22:00:00Z",
        ),
    ]);
}

#[test]
fn several_windows_are_one_when_they_touch() {
    check(&[
        (
            "08:00-12:00; 12:00-17:00",
            "2026-11-21T09:00:00Z",
            true,
            "2026-11-21T17:00:00Z",
        ),
        (
            "08:00-12:00, 10:00-11:00",
            "2026-11-21T10:30:00Z",
            true,
            "2026-11-21T12:00:00Z",
        ),
        (
            "08:00-12:00, 13:00-17:00",
            "2026-11-21T12:30:00Z",
            false,
            "2026-11-21T13:00:00Z",
        ),
        // The zone is that of the neighbour.
        (
            "08:00-12:00, 13:00-17:00 Europe/Oslo",
            "2026-11-21T07:00:00Z",
            true,
            "2026-11-21T11:00:00Z",
        ),
        (
            "08:00-12:00 Europe/Oslo, 13:00-17:00",
            "2026-11-21T12:00:00Z",
            true,
            "2026-11-21T16:00:00Z",
        ),
        (
            "08:00-12:00 Asia/Tokyo, 08:00-12:00 UTC",
            "2026-11-21T02:00:00Z",
            true,
            "2026-11-21T03:00:00Z",
        ),
        // Always: looked at again in eight days.
        ("00:00-24:00", "2026-11-21T12:00:00Z", true, "2026-11-29T12:00:00Z"),
    ]);
}

#[test]
fn where_the_clock_is_changed() {
    const NIGHT: &str = "01:30-02:30 Europe/Oslo";
    check(&[
        // 29 March: 02:00 is followed by 03:00. What would end within the gap ends an hour later by the wall clock.
        (NIGHT, "2026-03-29T00:29:00Z", false, "2026-03-29T00:30:00Z"),
        (NIGHT, "2026-03-29T00:30:00Z", true, "2026-03-29T01:30:00Z"),
        (NIGHT, "2026-03-29T01:30:00Z", false, "2026-03-29T23:30:00Z"),
        // 25 October: 02:00 to 03:00 comes twice. The first one counts.
        (NIGHT, "2026-10-24T23:30:00Z", true, "2026-10-25T00:30:00Z"),
        (NIGHT, "2026-10-25T01:00:00Z", false, "2026-10-26T00:30:00Z"),
        // A day of 23 and one of 25 hours.
        (
            "Sun 00:00-24:00 Europe/Oslo",
            "2026-03-28T23:00:00Z",
            true,
            "2026-03-29T22:00:00Z",
        ),
        (
            "Sun 00:00-24:00 Europe/Oslo",
            "2026-10-24T22:00:00Z",
            true,
            "2026-10-25T23:00:00Z",
        ),
        (
            "Mon-Fri 07:00-23:00 Europe/Oslo",
            "2026-03-27T22:00:00Z",
            false,
            "2026-03-30T05:00:00Z",
        ),
        (
            "Mon-Fri 07:00-23:00 Europe/Oslo",
            "2026-10-23T21:00:00Z",
            false,
            "2026-10-26T06:00:00Z",
        ),
        // Half an hour is put back there.
        (
            "00:00-12:00 Australia/Lord_Howe",
            "2026-04-04T14:00:00Z",
            true,
            "2026-04-05T01:30:00Z",
        ),
    ]);
}

#[test]
fn what_is_no_hours_says_so() {
    let most = ["08:00-09:00"; MOST + 1].join(",");
    for (text, fault) in [
        ("", "a window is empty"),
        ("08:00-09:00,", "a window is empty"),
        ("Mon-Fri", "the last days have no hours"),
        ("Mom 08:00-09:00", "`Mom` is not a day, Mon to Sun"),
        ("Mon-Fry 08:00-09:00", "`Fry` is not a day"),
        ("Mondy 08:00-09:00", "`Mondy` is not a day"),
        ("8-9", "`8-9` is not hours such as 07:00-23:00"),
        ("08:00", "`08:00` is not hours"),
        ("08:0-09:00", "is not hours"),
        ("08:60-09:00", "is not hours"),
        ("08:00-24:01", "is not hours"),
        ("24:00-08:00", "begins at 24:00; write 00:00"),
        ("08:00-08:00", "is empty; a whole day is 00:00-24:00"),
        (
            "08:00-09:00 Europe/Olso",
            "`Europe/Olso` is not a time zone; did you mean Europe/Oslo?",
        ),
        ("08:00-09:00 Oslo", "did you mean Europe/Oslo?"),
        ("08:00-09:00 new_york", "did you mean America/New_York?"),
        ("08:00-09:00 Nowhere/At_All_Ever", "is not a time zone"),
        ("08:00-09:00 UTC please", "`please` stands behind the time zone"),
        (&most, "more than 32 windows"),
    ] {
        let error = text.parse::<KeepWarm>().unwrap_err().to_string();
        assert!(error.contains(fault), "{text}: {error}");
    }
}

#[test]
fn it_prints_as_it_was_written() {
    let text = "Mon-Fri 07:00-23:00 Europe/Oslo";
    assert_eq!(read(&format!(" {text}\n")).to_string(), text);
    assert_eq!(read(text), read(text));
}

proptest! {
    #[test]
    fn no_text_panics(text in "(Mon|Fri|Sun|-|[0-9:]{0,5}|,|;| |UTC|Europe/Oslo|\u{e9}){0,10}", now in 0u64..u64::MAX) {
        if let Ok(windows) = text.parse::<KeepWarm>() {
            let now = Timestamp::from_nanos(now);
            let (_, until) = windows.open(now);
            prop_assert!(until > now || now.as_nanos() > u64::MAX - 1_000_000_000_000_000);
        }
    }

    /// What it says of now holds until then, and not a moment longer.
    #[test]
    fn it_changes_when_it_says(
        days in prop::sample::subsequence(vec!["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], 1..7),
        from in 0u16..1440, length in 1u16..1440, zone in prop::sample::select(vec!["UTC", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        seconds in 1_700_000_000u64..1_900_000_000, part in 0.0f64..1.0,
    ) {
        let to = (from + length) % 1440;
        let text = format!("{} {:02}:{:02}-{:02}:{:02} {zone}", days.join(" "), from / 60, from % 60, to / 60, to % 60);
        let windows = read(&text);
        let now = Timestamp::from_millis(seconds * 1000);
        let (open, until) = windows.open(now);
        prop_assert!(until > now);
        let between = now.plus(until.since(now).mul_f64(part));
        if between < until {
            prop_assert_eq!(windows.open(between).0, open, "{} at {:?}", text, between);
        }
        if until.since(now) < HORIZON {
            prop_assert_eq!(windows.open(until).0, !open, "{} at {:?}", text, until);
        }
    }
}
