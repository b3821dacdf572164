//! A world of one: every collective is already done.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use super::call::Call;
use super::transport::{OwnedSlice, ReduceOp, Slice, SliceMut, Transport};
use crate::error::{Error, Result};

/// The only rank. Messages to itself wait here, by tag.
#[derive(Default)]
pub struct Solo {
    mail: RefCell<BTreeMap<u32, VecDeque<OwnedSlice>>>,
}

impl Transport for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn checks_calls(&self, _call: &Call) -> bool {
        true
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _buf: SliceMut<'_>, _root: usize) -> Result<()> {
        Ok(())
    }

    fn all_reduce(&self, _buf: SliceMut<'_>, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn reduce_scatter(&self, send: Slice<'_>, _counts: &[usize], mut recv: SliceMut<'_>, _op: ReduceOp) -> Result<()> {
        recv.copy_from(&send.to_owned(), 0);
        Ok(())
    }

    fn all_gather(&self, send: Slice<'_>, _counts: &[usize], mut recv: SliceMut<'_>) -> Result<()> {
        recv.copy_from(&send.to_owned(), 0);
        Ok(())
    }

    fn send(&self, buf: Slice<'_>, _to: usize, tag: u32) -> Result<()> {
        self.mail.borrow_mut().entry(tag).or_default().push_back(buf.to_owned());
        Ok(())
    }

    fn recv(&self, mut buf: SliceMut<'_>, _from: usize, tag: u32) -> Result<()> {
        let message = self.mail.borrow_mut().get_mut(&tag).and_then(VecDeque::pop_front);
        let message = message.ok_or_else(|| {
            Error::comm(format!("the only rank waits for a message with tag {tag} that it has not sent to itself"))
        })?;
        fill(&mut buf, &message, 0, tag)
    }

    fn has_message(&self, _from: usize, tag: u32) -> Result<bool> {
        Ok(self.mail.borrow().get(&tag).is_some_and(|queue| !queue.is_empty()))
    }

    fn split(&self, _color: u32) -> Result<Box<dyn Transport>> {
        Ok(Box::new(Solo::default()))
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }

    fn library(&self) -> String {
        "one process, no message-passing library".to_string()
    }
}

/// Puts a received message into the buffer meant for it, if it fits exactly.
pub fn fill(buf: &mut SliceMut<'_>, message: &OwnedSlice, from: usize, tag: u32) -> Result<()> {
    let wanted = (buf.as_slice().element(), buf.len());
    check_message(wanted, (message.element(), message.len()), from, tag)?;
    buf.copy_from(message, 0);
    Ok(())
}

/// Refuses a message of another type or length than the receiver expects.
pub fn check_message(
    wanted: (super::transport::ElementType, usize),
    found: (super::transport::ElementType, usize),
    from: usize,
    tag: u32,
) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    let text = |(element, length): (super::transport::ElementType, usize)| format!("{}×{length}", element.name());
    Err(Error::comm(format!(
        "the message with tag {tag} from rank {from} is {}, but {} was expected",
        text(found),
        text(wanted)
    )))
}
