//! What HTTP requests bring to the task of a connection: bodies of POSTs, GETs that wait, new sockets.
//!
//! A request puts something in and nudges the task; the answer comes back on a channel of its own. Only
//! a few things wait at a time: the client of one connection sends one POST after the other.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::{mpsc, oneshot};

use crate::connection::socket::Socket;

/// POSTs of one connection that wait: clients send one after the other, proxies may repeat one.
const POSTS_MAX: usize = 16;

/// What a GET is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PollAnswer {
    /// Messages, or none when the client shall poll again.
    Data(Bytes),
    /// The connection has ended: 204.
    Ended,
}

/// The body of a POST.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) body: Bytes,
    /// Told whether the connection took it.
    pub(crate) done: oneshot::Sender<bool>,
}

/// A GET that waits for messages.
#[derive(Debug)]
pub(crate) enum Get {
    /// A long poll: one answer.
    Poll(oneshot::Sender<PollAnswer>),
    /// A stream of events.
    Events(mpsc::Sender<Bytes>),
}

#[derive(Default)]
struct Slots {
    posts: VecDeque<Post>,
    gets: VecDeque<Get>,
    socket: Option<Socket>,
    is_closed: bool,
}

/// The mailbox of a connection.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<Slots>);

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox(..)")
    }
}

/// It can't be brought: the connection is over, or too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The connection is over.
    Closed,
    /// More than one client would send.
    TooMany,
}

impl Mailbox {
    pub(crate) fn post(&self, post: Post) -> Result<(), NotTaken> {
        let mut slots = self.0.lock();
        match slots.is_closed {
            true => Err(NotTaken::Closed),
            false if slots.posts.len() >= POSTS_MAX => Err(NotTaken::TooMany),
            false => {
                slots.posts.push_back(post);
                Ok(())
            }
        }
    }

    pub(crate) fn get(&self, get: Get) -> Result<(), NotTaken> {
        let mut slots = self.0.lock();
        match slots.is_closed {
            true => Err(NotTaken::Closed),
            false if slots.gets.len() >= POSTS_MAX => Err(NotTaken::TooMany),
            false => {
                slots.gets.push_back(get);
                Ok(())
            }
        }
    }

    /// Hands over the socket that the client has come back on; an earlier one that waits is dropped.
    pub(crate) fn socket(&self, socket: Socket) -> Result<(), NotTaken> {
        let mut slots = self.0.lock();
        if slots.is_closed {
            return Err(NotTaken::Closed);
        }
        slots.socket = Some(socket);
        Ok(())
    }

    pub(crate) fn take_post(&self) -> Option<Post> {
        self.0.lock().posts.pop_front()
    }

    pub(crate) fn take_get(&self) -> Option<Get> {
        self.0.lock().gets.pop_front()
    }

    pub(crate) fn take_socket(&self) -> Option<Socket> {
        self.0.lock().socket.take()
    }

    /// Nothing is taken any more; who waits learns it by its channel.
    pub(crate) fn close(&self) {
        let mut slots = self.0.lock();
        slots.is_closed = true;
        slots.posts = VecDeque::new();
        slots.gets = VecDeque::new();
        slots.socket = None;
    }
}
