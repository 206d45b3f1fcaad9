//! A thread that asks a registry for bytes ahead of their turn can be told that nobody waits for them any more. It then
//! leaves its connection within a moment, and begins nothing new. Other threads notice nothing of this.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

/// How long a thread that may be told to stop waits before it looks whether it was.
const GLANCE: Duration = Duration::from_millis(100);

thread_local! {
    static TOLD: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Makes `told` what ends this thread. For one that does nothing else in its life.
pub fn this_thread_by(told: Arc<AtomicBool>) {
    TOLD.set(Some(told));
}

/// Whether this thread was told to stop; `None` where nobody can.
fn told() -> Option<bool> {
    TOLD.with_borrow(|told| told.as_ref().map(|told| told.load(Ordering::Relaxed)))
}

/// Whether nobody waits any more for what this thread does.
pub fn stopped() -> bool {
    told().unwrap_or_default()
}

/// Sleeps, or until this thread is told to stop.
pub fn sleep(wait: Duration) {
    if told().is_none() {
        return std::thread::sleep(wait);
    }
    let begin = Instant::now();
    while !stopped() && begin.elapsed() < wait {
        std::thread::sleep(GLANCE.min(wait.saturating_sub(begin.elapsed())));
    }
}

/// What makes connections whose readers can be told to stop.
pub fn connector() -> impl Connector {
    DefaultConnector::new().chain(Stopping)
}

#[derive(Debug)]
struct Stopping;

impl<T: Transport> Connector<T> for Stopping {
    type Out = Stoppable<T>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<T>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(Stoppable))
    }
}

#[derive(Debug)]
struct Stoppable<T>(T);

impl<T: Transport> Transport for Stoppable<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    /// Waits as long as it may, by a glance at a time: a wait that times out has taken nothing from the connection.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if told().is_none() {
            return self.0.await_input(timeout);
        }
        let (begin, whole) = (Instant::now(), timeout.for_read());
        loop {
            if stopped() {
                return Err(Error::Io(std::io::Error::other("nobody waits for it any more")));
            }
            let left = whole.after.saturating_sub(begin.elapsed());
            match self.0.await_input(NextTimeout { after: left.min(GLANCE).into(), ..whole }) {
                Err(Error::Timeout(_)) if left > GLANCE => {}
                other => return other,
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
