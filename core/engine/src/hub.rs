//! Events to any number of subscribers, none of which can hold the engine up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::event::Event;

/// Events that wait for one subscriber; beyond that they are counted and left out.
const WAITING_MAX: usize = 4096;

/// The sending side.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Vec<Subscriber>>>);

struct Subscriber {
    queue: Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// A subscription to a node's events, from the moment it was made. It may be used from any thread.
#[derive(Debug)]
pub struct Events {
    queue: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Hub {
    pub(crate) fn subscribe(&self) -> Events {
        let (sender, receiver) = bounded(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        self.subscribers().push(Subscriber { queue: sender, lost: Arc::clone(&lost) });
        Events { queue: receiver, lost }
    }

    /// Tells all subscribers; forgets those that are gone.
    pub(crate) fn tell(&self, event: &Event) {
        self.subscribers().retain(|subscriber| match subscriber.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                subscriber.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    /// Ends all subscriptions once what waits is read.
    pub(crate) fn end(&self) {
        self.subscribers().clear();
    }

    fn subscribers(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// Nothing happened in that time.
    #[error("nothing happened in that time")]
    Timeout,
    /// The node has stopped and all its events are read.
    #[error("the node has stopped")]
    Stopped,
}

impl Events {
    /// The next event, waiting for it at most so long.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(&self, timeout: Duration) -> Result<Event, NoEvent> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.queue.recv_timeout(timeout).map_err(|error| match error {
                RecvTimeoutError::Timeout => NoEvent::Timeout,
                RecvTimeoutError::Disconnected => NoEvent::Stopped,
            }),
            count => Ok(Event::Lost { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_is_told_how_many_events_it_lost() {
        let hub = Hub::default();
        let events = hub.subscribe();
        for _ in 0..WAITING_MAX + 3 {
            hub.tell(&Event::Captured { changes: 1 });
        }
        assert_eq!(events.next(Duration::ZERO), Ok(Event::Lost { count: 3 }));
        assert_eq!(events.next(Duration::ZERO), Ok(Event::Captured { changes: 1 }));
    }

    #[test]
    fn what_waits_is_still_read_after_the_end() {
        let hub = Hub::default();
        let events = hub.subscribe();
        assert_eq!(events.next(Duration::ZERO), Err(NoEvent::Timeout));
        hub.tell(&Event::Stopped);
        hub.end();
        assert_eq!(events.next(Duration::ZERO), Ok(Event::Stopped));
        assert_eq!(events.next(Duration::ZERO), Err(NoEvent::Stopped));
    }
}
