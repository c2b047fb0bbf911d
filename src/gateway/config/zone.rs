//! The IANA name of what `TZ` says: a name, a file of the zones' folder, or a rule of POSIX such as
//! `CET-1CEST,M3.5.0,M10.5.0/3`.
//!
//! Pure but for the table of zones. A name is needed, not only the rule: jobs keep it, and people are shown it.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// Zones that stand for a rule with summer time, or with an offset that is no whole hour. For the others there is `Etc/GMT`.
const KNOWN: [&str; 25] = [
    "Europe/London",
    "Europe/Dublin",
    "Europe/Berlin",
    "Europe/Athens",
    "Europe/Chisinau",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "America/Halifax",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "Asia/Jerusalem",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Kabul",
    "Asia/Tehran",
    "Asia/Yangon",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Australia/Darwin",
    "Pacific/Auckland",
];
/// The instant at which rules are compared: 2040, when every zone follows its last rule.
const COMPARED_FROM: i64 = 2_208_988_800;

/// The name, or `None` where there is none that means the same.
pub(super) fn name(tz: &str) -> Option<String> {
    let tz = tz.trim().trim_start_matches(':');
    let name = tz.split_once("/zoneinfo/").map_or(tz, |(_, name)| name);
    let name = ["posix/", "right/"].iter().find_map(|part| name.strip_prefix(part)).unwrap_or(name);
    if TimeZone::get(name).is_ok() {
        return Some(name.to_owned());
    }
    let rule = TimeZone::posix(tz).ok()?;
    // The zones that are called like a rule come first: CET is what people know it by.
    let short = tz.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let own = [tz.split(',').next().unwrap_or_default(), short];
    let same = |name: &&str| TimeZone::get(name).is_ok_and(|zone| mean_the_same(&zone, &rule));
    own.into_iter().chain(KNOWN).find(same).map(str::to_owned).or_else(|| by_offset(&rule))
}

/// A rule without summer time and with whole hours. The sign of these names is that of POSIX: west is positive.
fn by_offset(rule: &TimeZone) -> Option<String> {
    let from = Timestamp::from_second(COMPARED_FROM).ok()?;
    let seconds = rule.to_offset(from).seconds();
    let name = match -(seconds / 3600) {
        0 => "UTC".to_owned(),
        hours => format!("Etc/GMT{hours:+}"),
    };
    TimeZone::get(&name).is_ok_and(|zone| mean_the_same(&zone, rule)).then_some(name)
}

/// Whether two zones have the same offsets in the years to come.
fn mean_the_same(one: &TimeZone, other: &TimeZone) -> bool {
    let Ok(from) = Timestamp::from_second(COMPARED_FROM) else { return false };
    let changes = |zone: &TimeZone| -> Vec<(Timestamp, Offset)> {
        zone.following(from).take(4).map(|change| (change.timestamp(), change.offset())).collect()
    };
    one.to_offset(from) == other.to_offset(from) && changes(one) == changes(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_tz_has_a_name_where_there_is_one() {
        for (tz, zone) in [
            ("Asia/Tokyo", Some("Asia/Tokyo")),
            (":Europe/Zurich", Some("Europe/Zurich")),
            ("utc", Some("utc")),
            ("/usr/share/zoneinfo/Asia/Tokyo", Some("Asia/Tokyo")),
            (":/usr/share/zoneinfo/posix/America/New_York", Some("America/New_York")),
            ("EST5EDT", Some("EST5EDT")),
            ("CET-1CEST,M3.5.0,M10.5.0/3", Some("CET")),
            ("EST5EDT,M3.2.0,M11.1.0", Some("EST5EDT")),
            ("GMT0BST,M3.5.0/1,M10.5.0", Some("Europe/London")),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", Some("Australia/Sydney")),
            ("NZST-12NZDT,M9.5.0,M4.1.0/3", Some("Pacific/Auckland")),
            ("IST-5:30", Some("Asia/Kolkata")),
            ("JST-9", Some("Etc/GMT-9")),
            ("<-03>3", Some("Etc/GMT+3")),
            ("UTC0", Some("UTC")),
            ("XXX-1YYY,M1.1.0,M2.1.0", None),
            ("Mars/Olympus", None),
            ("/etc/localtime", None),
            ("", None),
        ] {
            assert_eq!(name(tz).as_deref(), zone, "{tz}");
        }
    }
}
