//! The places of a listener: who has one, who gives way, and what those who have one are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// The places of a listener, and who has them.
pub(super) struct Places {
    table: Mutex<Table>,
    freed: Notify,
    all: usize,
    per_address: usize,
}

#[derive(Default)]
struct Table {
    /// By the order in which they came.
    open: BTreeMap<u64, Open>,
    /// Those that have not asked for anything yet.
    silent: BTreeSet<u64>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

struct Open {
    address: IpAddr,
    told: Arc<Told>,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Word {
    Serve,
    /// The request in flight is the last; one that has not begun ends.
    Finish,
    End,
}

/// What one connection was told last. It is looked at whenever something comes on the connection: this costs a tenth of what a
/// cancellation token does, which knows of children and of many who wait.
#[derive(Default)]
pub(super) struct Told {
    word: AtomicU8,
    connection: AtomicWaker,
}

impl Told {
    fn tell(&self, word: Word) {
        self.word.fetch_max(word as u8, Ordering::AcqRel);
        self.connection.wake();
    }

    fn word(&self) -> Word {
        match self.word.load(Ordering::Acquire) {
            0 => Word::Serve,
            1 => Word::Finish,
            _ => Word::End,
        }
    }

    /// What was told; whoever asked last is woken when there is more.
    pub(super) fn hear(&self, cx: &Context<'_>) -> Word {
        self.connection.register(cx.waker());
        self.word()
    }
}

/// One connection's place, given up when dropped.
pub(super) struct Place {
    id: u64,
    pub(super) told: Arc<Told>,
    asked: AtomicBool,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(all: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), freed: Notify::new(), all, per_address })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a connection can be let in, if need be in place of one that has not asked for anything.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let table = self.table();
                if table.open.len() < self.all || !table.silent.is_empty() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// `None` where this address has all its places, and has asked for something on each of them.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = client(address);
        let mut table = self.table();
        if table.by_address.get(&address).is_some_and(|open| *open >= self.per_address) {
            table.evict(Some(address))?;
        }
        if table.open.len() >= self.all {
            table.evict(None)?;
        }
        let (id, told) = (table.next, Arc::<Told>::default());
        table.next += 1;
        table.open.insert(id, Open { address, told: Arc::clone(&told) });
        table.silent.insert(id);
        *table.by_address.entry(address).or_default() += 1;
        Some(Place { id, told, asked: AtomicBool::new(false), places: Arc::clone(self) })
    }

    /// Ends the oldest connection that has not asked for anything.
    pub(super) fn give_way(&self, address: Option<IpAddr>) {
        self.table().evict(address);
    }

    /// Tells all of them.
    pub(super) fn tell(&self, word: Word) {
        self.table().open.values().for_each(|open| open.told.tell(word));
    }

    /// Waits until nobody has a place any more. For the one who waits when nobody is let in.
    pub(super) async fn empty(&self) {
        loop {
            let freed = self.freed.notified();
            if self.table().open.is_empty() {
                return;
            }
            freed.await;
        }
    }
}

impl Table {
    /// Ends the oldest connection (of this address) that has not asked for anything, if there is one.
    fn evict(&mut self, address: Option<IpAddr>) -> Option<()> {
        let of_address =
            |id: &u64| address.is_none_or(|address| self.open.get(id).is_some_and(|it| it.address == address));
        let id = self.silent.iter().copied().find(of_address)?;
        self.remove(id)?.told.tell(Word::End);
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        self.silent.remove(&id);
        let open = self.open.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&open.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&open.address);
            }
        }
        Some(open)
    }
}

impl Place {
    pub(super) fn request_began(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.places.table().silent.remove(&self.id);
        }
    }

    /// Does what is wanted before anything was asked for: there is nothing to finish. `None` where the connection ends first.
    pub(super) async fn unless_told<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.told.hear(cx) {
            Word::Serve => work.as_mut().poll(cx).map(Some),
            Word::Finish | Word::End => Poll::Ready(None),
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().remove(self.id);
        self.places.freed.notify_one();
    }
}

/// What counts as one address: whoever has an IPv6 address has a network of 64 bits of them.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn is_ended(place: &Place) -> bool {
        place.told.word() == Word::End
    }

    #[test]
    fn the_oldest_silent_connection_gives_way() {
        let places = Places::new(3, 2);
        let (first, second) = (places.enter(A).unwrap(), places.enter(A).unwrap());
        let third = places.enter(A).unwrap();
        assert!(is_ended(&first), "the address has two places");
        assert!(!is_ended(&second) && !is_ended(&third));
        let other = places.enter(B).unwrap();
        let newest = places.enter(B).unwrap();
        assert!(is_ended(&second) && !is_ended(&other), "all have three places");
        drop((first, second, third, other, newest));
        assert!(places.table().open.is_empty() && places.table().by_address.is_empty());
    }

    #[test]
    fn a_connection_with_a_request_stays() {
        let places = Places::new(2, 1);
        let busy = places.enter(A).unwrap();
        busy.request_began();
        assert!(places.enter(A).is_none());
        let other = places.enter(B).unwrap();
        other.request_began();
        assert!(!is_ended(&busy));
        drop(busy);
        assert!(places.enter(A).is_some());
    }

    #[tokio::test]
    async fn a_full_listener_waits_for_a_place() {
        let places = Places::new(1, 1);
        let only = places.enter(A).unwrap();
        places.room().await;
        only.request_began();
        let waiting = places.room();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(only);
        waiting.await;
    }

    #[tokio::test]
    async fn who_is_told_to_end_ends_and_who_drains_waits_for_the_last() {
        let places = Places::new(2, 2);
        let (silent, busy) = (places.enter(A).unwrap(), places.enter(A).unwrap());
        let mut empty = pin!(places.empty());
        assert!(futures_util::poll!(&mut empty).is_pending());
        {
            let mut waiting = pin!(silent.unless_told(std::future::pending::<()>()));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            places.tell(Word::Finish);
            assert_eq!(waiting.await, None, "it is woken by the word alone");
        }
        assert_eq!(busy.unless_told(std::future::ready(1)).await, None, "nothing is begun any more");
        places.tell(Word::End);
        places.tell(Word::Finish);
        assert!(is_ended(&busy), "no later word takes the end back");
        drop(silent);
        assert!(futures_util::poll!(&mut empty).is_pending(), "one is left");
        drop(busy);
        empty.await;
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(client(a), client(b));
        assert_ne!(client(a), client(c));
        assert_eq!(client("::ffff:192.0.2.1".parse().unwrap()), A);
    }
}
