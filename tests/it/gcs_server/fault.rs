//! What can be made to go wrong, and for which requests. A fault matches by text, so a test can hit exactly the request
//! it means without knowing how the client orders the others.

use percent_encoding::percent_decode_str;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Answers with this status and does nothing.
    Status(u16),
    /// Does what was asked, then answers with this status all the same.
    StatusAfter(u16),
    /// Resets the connection (RST) and does nothing.
    Reset,
    /// Does what was asked, then resets the connection.
    ResetAfter,
    /// Does what was asked, then closes the connection (FIN) without an answer.
    CloseAfter,
    /// Does nothing for this long, then proceeds as usual; a client that hangs up meanwhile gets nothing done.
    Delay(Duration),
    /// Announces the whole answer, sends this many bytes of it, and closes the connection.
    Truncate(u64),
    /// Sends the answer with one bit in its middle inverted.
    Flip,
}

/// A fault for the requests whose line contains `pattern`: the first `skip` of them pass, the next `count` are hit.
///
/// The line is `METHOD /bucket/key?query`. The pattern may be written as on the wire (`/test%2Dbucket/a%2Fb`) or
/// decoded (`/test-bucket/a/b`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) pattern: String,
    pub(crate) count: usize,
    pub(crate) skip: usize,
}

impl Fault {
    /// Hits the first request that matches and no other.
    pub(crate) fn once(action: Action, pattern: &str) -> Self {
        Self::times(1, action, pattern)
    }

    /// Hits the first `count` requests that match; `usize::MAX` is for ever.
    pub(crate) fn times(count: usize, action: Action, pattern: &str) -> Self {
        Self { action, pattern: pattern.to_owned(), count, skip: 0 }
    }

    fn matches(&self, line: &str) -> bool {
        self.count > 0
            && (line.contains(&self.pattern) || percent_decode_str(line).decode_utf8_lossy().contains(&self.pattern))
    }
}

#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// What is to go wrong with this request. The first fault that is due wins; the others keep their counts.
    pub(super) fn draw(&mut self, line: &str) -> Option<Action> {
        for fault in self.0.iter_mut().filter(|fault| fault.matches(line)) {
            if fault.skip == 0 {
                fault.count -= 1;
                return Some(fault.action);
            }
            fault.skip -= 1;
        }
        None
    }

    /// Forgets all faults and returns those that were never used up.
    pub(super) fn clear(&mut self) -> Vec<Fault> {
        self.0.drain(..).filter(|fault| fault.count > 0).collect()
    }
}
