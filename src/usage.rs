//! Figures over time: what an agent used and answered, in rings of a fixed size.
//!
//! ```text
//! minutes   a block for each hour, 60 points       25 blocks: a day, and the hour that has begun
//! hours     a block for each day, 24 points        31 blocks: thirty days, and the day that has begun
//! ```
//! A block is one row of the store under a number that comes round again, so that an agent never takes more than
//! [`BYTES_PER_AGENT`]. Pure: who measures and who writes is elsewhere.

mod float;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::float::{float, unfloat};
use crate::domain::{AgentId, Timestamp};

const POINT: usize = 13;
/// Of versions that knew no tokens: six fields of sixteen bits.
const OLD_POINT: usize = 12;
const OLD_ABSENT: u16 = u16::MAX;
/// Figures are kept as floats of twelve and of sixteen bits, which are exact up to 255 and 4095 and one in 256 and in 4096 off
/// above that. The highest of each means that nothing was measured.
const SHORT_MANTISSA: u32 = 7;
const LONG_MANTISSA: u32 = 11;
const ABSENT_SHORT: u16 = 0xfff;
const ABSENT_LONG: u16 = 0xffff;
/// Cost is kept in millionths of a dollar.
const MICROS: f64 = 1e6;
/// Answers of a minute whose times are kept, to tell quantiles from.
const MAX_TIMES: usize = 512;
/// Steps of the time to an answer: ten minutes fit.
const TIME_STEP_MS: u64 = 10;
/// What the rows of one agent hold at most, in bytes: each block with its number and its checksum.
pub const BYTES_PER_AGENT: usize = 25 * (16 + 60 * POINT) + 31 * (16 + 24 * POINT);

/// A ring: how long a point is, and how many make a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ring {
    /// A point for each minute, kept for a day.
    Minutes,
    /// A point for each hour, kept for thirty days.
    Hours,
}

/// A minute or an hour of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Point {
    /// Percent of one core, on average; none where nothing was measured.
    pub cpu_percent: Option<f64>,
    /// The most that was seen, in MiB.
    pub memory_mb: Option<f64>,
    /// Messages that got an answer.
    pub answered: u64,
    /// Messages that got none.
    pub failed: u64,
    /// Half of the answers came within it.
    pub p50_ms: Option<u64>,
    /// 95 in 100 of the answers came within it.
    pub p95_ms: Option<u64>,
    /// What the model read and wrote; none where the gateway does not tell.
    pub tokens: Option<u64>,
    /// Dollars.
    pub cost_usd: Option<f64>,
}

/// Points that follow each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    ring: Ring,
    /// Hours, or days, since 1970.
    number: i64,
    points: Vec<[u8; POINT]>,
}

/// What agents answered since it was last taken.
#[derive(Default)]
pub struct Tallies(Mutex<HashMap<AgentId, Tally>>);

/// What was answered, by one agent or by several together.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    answered: u64,
    failed: u64,
    times_ms: Vec<u64>,
}

impl Ring {
    /// How long a point is.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minutes => 60,
            Self::Hours => 3600,
        }
    }

    const fn points(self) -> i64 {
        match self {
            Self::Minutes => 60,
            Self::Hours => 24,
        }
    }

    const fn blocks(self) -> i64 {
        match self {
            Self::Minutes => 25,
            Self::Hours => 31,
        }
    }

    /// The block that a time belongs to, and the point in it.
    fn place(self, at: Timestamp) -> (i64, usize) {
        let point = at.as_second().div_euclid(self.seconds());
        (point.div_euclid(self.points()), usize::try_from(point.rem_euclid(self.points())).unwrap_or(0))
    }
}

impl Block {
    /// The block of this time, without points.
    pub fn at(ring: Ring, at: Timestamp) -> Self {
        let points = vec![Point::default().encode(); usize::try_from(ring.points()).unwrap_or(0)];
        Self { ring, number: ring.place(at).0, points }
    }

    /// Which ring it is of.
    pub const fn ring(&self) -> Ring {
        self.ring
    }

    /// Under which number it is kept.
    pub fn slot(&self) -> u16 {
        let slot = u16::try_from(self.number.rem_euclid(self.ring.blocks())).unwrap_or(0);
        match self.ring {
            Ring::Minutes => slot,
            Ring::Hours => 0x100 + slot,
        }
    }

    /// Whether this time is in it.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.ring.place(at).0 == self.number
    }

    /// Replaces the point of this time; nothing happens where the block does not cover it.
    pub fn set(&mut self, at: Timestamp, point: Point) {
        let (number, place) = self.ring.place(at);
        if let Some(kept) = self.points.get_mut(place).filter(|_| number == self.number) {
            *kept = point.encode();
        }
    }

    /// Its points that have something, with their begin.
    pub fn points(&self) -> impl Iterator<Item = (Timestamp, Point)> + '_ {
        let first = self.number * self.ring.points();
        (first..).zip(&self.points).filter_map(|(n, bytes)| {
            let point = Point::decode(*bytes);
            let at = Timestamp::from_second(n * self.ring.seconds()).ok()?;
            (point != Point::default()).then_some((at, point))
        })
    }

    /// Its number and its points, for the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.number.to_be_bytes().to_vec();
        bytes.extend(self.points.iter().flatten());
        bytes
    }

    /// What [`Block::to_bytes`] made; none where it is of another size.
    pub fn from_bytes(slot: u16, bytes: &[u8]) -> Option<Self> {
        let ring = if slot < 0x100 { Ring::Minutes } else { Ring::Hours };
        let (number, points) = bytes.split_first_chunk::<8>()?;
        let count = usize::try_from(ring.points()).ok()?;
        let points = match points.len() {
            length if length == count * POINT => points.as_chunks::<POINT>().0.to_vec(),
            length if length == count * OLD_POINT => {
                points.as_chunks::<OLD_POINT>().0.iter().map(|old| Point::decode_old(*old).encode()).collect()
            }
            _ => return None,
        };
        Some(Self { ring, number: i64::from_be_bytes(*number), points })
    }
}

impl Point {
    /// Several as one: the average of what is used, the most of memory and of the slow answers, all messages.
    pub fn merged(points: &[Self]) -> Self {
        let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let answered: u64 = points.iter().map(|it| it.answered).sum();
        let halves = points.iter().filter_map(|it| Some((it.p50_ms? * it.answered, it.answered)));
        let (sum, count) = halves.fold((0, 0), |(sum, count), (time, n)| (sum + time, count + n));
        Self {
            cpu_percent: mean(points.iter().filter_map(|it| it.cpu_percent).collect()),
            memory_mb: points.iter().filter_map(|it| it.memory_mb).reduce(f64::max),
            answered,
            failed: points.iter().map(|it| it.failed).sum(),
            p50_ms: (count > 0).then(|| sum / count),
            p95_ms: points.iter().filter_map(|it| it.p95_ms).max(),
            tokens: points.iter().filter_map(|it| it.tokens).reduce(|sum, more| sum + more),
            cost_usd: points.iter().filter_map(|it| it.cost_usd).reduce(|sum, more| sum + more),
        }
    }

    /// Of a tally, with what was used: percent of a core, MiB.
    pub fn of(tally: Tally, used: Option<(f64, f64)>, spent: Option<(u64, f64)>) -> Self {
        let mut times = tally.times_ms;
        times.sort_unstable();
        let quantile = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        Self {
            cpu_percent: used.map(|(cpu, _)| cpu),
            memory_mb: used.map(|(_, memory)| memory),
            answered: tally.answered,
            failed: tally.failed,
            p50_ms: quantile(50).copied(),
            p95_ms: quantile(95).copied(),
            tokens: spent.map(|(tokens, _)| tokens),
            cost_usd: spent.map(|(_, cost)| cost),
        }
    }

    fn encode(self) -> [u8; POINT] {
        let scaled = |value: Option<f64>, scale: f64| value.map(|value| (value * scale).round() as u64);
        let long = |value: Option<u64>| value.map_or(ABSENT_LONG, |value| float(value, LONG_MANTISSA, ABSENT_LONG - 1));
        let short =
            |value: Option<u64>| value.map_or(ABSENT_SHORT, |value| float(value, SHORT_MANTISSA, ABSENT_SHORT - 1));
        let steps = |ms: Option<u64>| ms.map(|ms| ms.div_ceil(TIME_STEP_MS));
        let mut bytes = [0; POINT];
        bytes[0..2].copy_from_slice(&long(scaled(self.cpu_percent, 10.0)).to_be_bytes());
        bytes[2..4].copy_from_slice(&long(scaled(self.memory_mb, 1.0)).to_be_bytes());
        let pairs = [
            (Some(self.answered), Some(self.failed)),
            (steps(self.p50_ms), steps(self.p95_ms)),
            (self.tokens, scaled(self.cost_usd, MICROS)),
        ];
        for (three, (first, second)) in bytes[4..].as_chunks_mut::<3>().0.iter_mut().zip(pairs) {
            let both = u32::from(short(first)) << 12 | u32::from(short(second));
            three.copy_from_slice(&both.to_be_bytes()[1..]);
        }
        bytes
    }

    fn decode(bytes: [u8; POINT]) -> Self {
        let long = |at: usize| Some(u16::from_be_bytes([bytes[at], bytes[at + 1]])).filter(|it| *it != ABSENT_LONG);
        let long = |at: usize| long(at).map(|it| unfloat(it, LONG_MANTISSA));
        let short = |at: usize, second: bool| {
            let both = u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
            let one = u16::try_from(if second { both & 0xfff } else { both >> 12 }).unwrap_or(ABSENT_SHORT);
            Some(one).filter(|it| *it != ABSENT_SHORT).map(|it| unfloat(it, SHORT_MANTISSA))
        };
        Self {
            cpu_percent: long(0).map(|tenths| tenths as f64 / 10.0),
            memory_mb: long(2).map(|mebibytes| mebibytes as f64),
            answered: short(4, false).unwrap_or_default(),
            failed: short(4, true).unwrap_or_default(),
            p50_ms: short(7, false).map(|steps| steps * TIME_STEP_MS),
            p95_ms: short(7, true).map(|steps| steps * TIME_STEP_MS),
            tokens: short(10, false),
            cost_usd: short(10, true).map(|micros| micros as f64 / MICROS),
        }
    }

    fn decode_old(bytes: [u8; OLD_POINT]) -> Self {
        let field = |n: usize| u16::from_be_bytes([bytes[2 * n], bytes[2 * n + 1]]);
        let there = |n: usize| Some(field(n)).filter(|value| *value != OLD_ABSENT);
        Self {
            cpu_percent: there(0).map(|tenths| f64::from(tenths) / 10.0),
            memory_mb: there(1).map(f64::from),
            answered: field(2).into(),
            failed: field(3).into(),
            p50_ms: there(4).map(|steps| u64::from(steps) * TIME_STEP_MS),
            p95_ms: there(5).map(|steps| u64::from(steps) * TIME_STEP_MS),
            tokens: None,
            cost_usd: None,
        }
    }
}

impl Tally {
    /// What several agents answered, as one.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.times_ms.extend(&other.times_ms);
    }
}

impl Tallies {
    /// A message was answered within this time, or failed.
    pub fn note(&self, agent: AgentId, answered: bool, took: Duration) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.entry(agent).or_default();
        if !answered {
            tally.failed += 1;
            return;
        }
        tally.answered += 1;
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if tally.times_ms.len() < MAX_TIMES {
            tally.times_ms.push(took);
        } else {
            // Any of them: which one is as good as random.
            let place = usize::try_from(tally.answered % MAX_TIMES as u64).unwrap_or(0);
            tally.times_ms[place] = took;
        }
    }

    /// What was noted since the last call, by agent; agents without messages are missing.
    pub fn take(&self) -> HashMap<AgentId, Tally> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const FULL: Point = Point {
        cpu_percent: Some(12.5),
        memory_mb: Some(300.0),
        answered: 7,
        failed: 1,
        p50_ms: Some(120),
        p95_ms: Some(2_000),
        tokens: Some(250),
        cost_usd: Some(0.000_2),
    };

    #[test]
    fn a_block_is_read_back_as_it_was_written() {
        let now = at("2026-03-01T23:59:30Z");
        for (ring, begin) in [(Ring::Minutes, "2026-03-01T23:59:00Z"), (Ring::Hours, "2026-03-01T23:00:00Z")] {
            let mut block = Block::at(ring, now);
            block.set(now, FULL);
            let read = Block::from_bytes(block.slot(), &block.to_bytes()).unwrap();
            assert_eq!(read, block);
            assert_eq!(read.points().collect::<Vec<_>>(), [(at(begin), FULL)]);
            assert!(block.covers(now) && !block.covers(at("2026-03-02T00:00:00Z")));
        }
        assert_eq!(Block::from_bytes(3, &[0; 20]), None);
    }

    #[test]
    fn an_agent_takes_no_more_than_thirty_kibibytes_however_long_it_lives() {
        let mut rows = std::collections::BTreeMap::new();
        for hour in 0..24 * 400_i64 {
            let now = Timestamp::from_second(1_700_000_000 + hour * 3600).unwrap();
            for ring in [Ring::Minutes, Ring::Hours] {
                let block = Block::at(ring, now);
                rows.insert(block.slot(), block.to_bytes().len() + 8);
            }
        }
        assert_eq!(rows.len(), 25 + 31);
        assert_eq!(rows.values().sum::<usize>(), BYTES_PER_AGENT);
        const { assert!(BYTES_PER_AGENT < 30 * 1024) };
    }

    #[test]
    fn what_is_too_large_for_its_field_is_the_most_that_fits() {
        let huge = Point { cpu_percent: Some(1e15), memory_mb: Some(1e15), answered: 1 << 40, ..FULL };
        let read = Point::decode(huge.encode());
        assert!(read.cpu_percent > Some(1e11) && read.memory_mb > Some(1e12), "{read:?}");
        assert_eq!(read.answered, 254 << 30);
    }

    #[test]
    fn a_block_of_a_version_without_tokens_is_read() {
        let old: Vec<u8> = [125_u16, 300, 7, 1, 12, 200].into_iter().flat_map(u16::to_be_bytes).collect();
        let mut bytes = 20_000_i64.to_be_bytes().to_vec();
        bytes.extend(old.iter().copied().cycle().take(24 * OLD_POINT));
        let block = Block::from_bytes(0x105, &bytes).unwrap();
        let points: Vec<Point> = block.points().map(|(_, point)| point).collect();
        assert_eq!(points, vec![Point { tokens: None, cost_usd: None, ..FULL }; 24]);
    }

    #[test]
    fn quantiles_are_of_the_answers_alone() {
        let (tallies, agent) = (Tallies::default(), AgentId::new());
        for n in 1..=100 {
            tallies.note(agent, true, Duration::from_millis(n * 10));
        }
        tallies.note(agent, false, Duration::from_secs(60));
        let point = Point::of(tallies.take().remove(&agent).unwrap(), None, None);
        assert_eq!((point.answered, point.failed, point.p50_ms, point.p95_ms), (100, 1, Some(510), Some(960)));
        assert_eq!(Point::of(Tally::default(), Some((1.0, 2.0)), Some((3, 0.5))).tokens, Some(3));
        assert_eq!(Point::of(Tally::default(), Some((1.0, 2.0)), None).p50_ms, None);
        assert!(tallies.take().is_empty());
    }

    #[test]
    fn merged_points_sum_messages_and_average_what_is_used() {
        let idle = Point { cpu_percent: Some(0.5), memory_mb: Some(100.0), ..Point::default() };
        let merged = Point::merged(&[FULL, idle, Point::default()]);
        assert_eq!(merged, Point { cpu_percent: Some(6.5), ..FULL });
        assert_eq!(Point::merged(&[FULL, FULL]).tokens, Some(500));
        assert_eq!(Point::merged(&[]), Point::default());
    }
}
