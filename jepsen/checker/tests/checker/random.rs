//! Random histories made from a true order: a log in memory, senders with several records in flight,
//! readers that move, and answers that get lost. Every choice comes from a seed.

use fleetline_checker::{Kind, Outcome, Record};

/// A small generator (SplitMix64): the same seed, the same history.
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A session: one process that sends for one device, in order.
struct Session {
    process: u32,
    key: u64,
    /// Sent and not committed, oldest first.
    waiting: Vec<Record>,
    /// Committed and not answered, oldest first.
    committed: Vec<Record>,
}

/// A reader and where it stands.
struct Reader {
    process: u32,
    next: u64,
}

/// One partition's part of a run.
struct Run {
    draw: Draw,
    partition: u32,
    now: u64,
    processes: u32,
    values: u64,
    log: Vec<(u64, u64)>,
    records: Vec<Record>,
}

/// A valid history of one partition with about `steps` operations: the reader that reads it to its
/// end is the one with the highest process number.
pub fn valid(seed: u64, partition: u32, steps: u64) -> Vec<Record> {
    let mut run = Run {
        draw: Draw::new(seed),
        partition,
        now: 0,
        processes: partition * 100_000,
        values: 0,
        log: Vec::new(),
        records: Vec::new(),
    };
    let mut sessions: Vec<Session> = (0..3).map(|key| run.session(key)).collect();
    let mut readers: Vec<Reader> = (0..2).map(|_| run.reader()).collect();
    for _ in 0..steps {
        run.now += 1 + run.draw.below(5);
        match run.draw.below(10) {
            0..=2 => {
                let at = run.draw.below(3) as usize;
                run.send(&mut sessions[at]);
            }
            3..=4 => {
                let at = run.draw.below(3) as usize;
                run.commit(&mut sessions[at]);
            }
            5..=6 => {
                let at = run.draw.below(3) as usize;
                run.answer(&mut sessions[at]);
            }
            7 => {
                let at = run.draw.below(3) as usize;
                run.cut(&mut sessions[at]);
            }
            _ => {
                let at = run.draw.below(2) as usize;
                run.read(&mut readers[at]);
            }
        }
    }
    run.finish(sessions);
    run.records
}

impl Run {
    fn process(&mut self) -> u32 {
        self.processes += 1;
        self.processes
    }

    fn session(&mut self, key: u64) -> Session {
        Session { process: self.process(), key, waiting: Vec::new(), committed: Vec::new() }
    }

    fn reader(&mut self) -> Reader {
        Reader { process: self.process(), next: 0 }
    }

    fn send(&mut self, session: &mut Session) {
        if session.waiting.len() < 3 {
            self.values += 1;
            session.waiting.push(Record {
                key: session.key,
                value: (u64::from(self.partition) << 40) + self.values,
                invoke: self.now,
                ..Record::new(Kind::Send, session.process, self.partition)
            });
        }
    }

    fn commit(&mut self, session: &mut Session) {
        if !session.waiting.is_empty() {
            let record = session.waiting.remove(0);
            session.committed.push(Record { offset: Some(self.log.len() as u64), ..record });
            self.log.push((record.key, record.value));
        }
    }

    fn answer(&mut self, session: &mut Session) {
        if !session.committed.is_empty() {
            let record = session.committed.remove(0);
            self.records.push(Record { complete: self.now, ..record });
        }
    }

    /// Sometimes: one send is refused, or the connection breaks and what is open stays unknown.
    fn cut(&mut self, session: &mut Session) {
        let now = self.now;
        if self.draw.one_in(2) {
            if let Some(record) = session.waiting.pop() {
                self.records.push(Record { complete: now, outcome: Outcome::Failed, ..record });
            }
        } else if self.draw.one_in(3) {
            // Some of what waits is still committed, without anybody knowing.
            for _ in 0..self.draw.below(session.waiting.len() as u64 + 1) {
                self.commit(session);
            }
            for record in session.committed.drain(..).chain(session.waiting.drain(..)) {
                self.records.push(Record {
                    complete: now,
                    outcome: Outcome::Unknown,
                    offset: None,
                    ..record
                });
            }
            session.process = self.process();
        }
    }

    fn read(&mut self, reader: &mut Reader) {
        if self.draw.one_in(8) {
            reader.next = self.draw.below(self.log.len() as u64 + 1);
            self.records.push(Record {
                invoke: self.now,
                complete: self.now,
                offset: Some(reader.next),
                ..Record::new(Kind::Seek, reader.process, self.partition)
            });
        }
        let upto = (self.log.len() as u64).min(reader.next + 1 + self.draw.below(4));
        let invoke = self.now;
        self.now += 1;
        self.deliver(reader, upto, invoke);
    }

    fn deliver(&mut self, reader: &mut Reader, upto: u64, invoke: u64) {
        for offset in reader.next..upto {
            let (key, value) = self.log[offset as usize];
            self.records.push(Record {
                key,
                value,
                invoke,
                complete: self.now,
                offset: Some(offset),
                ..Record::new(Kind::Read, reader.process, self.partition)
            });
        }
        reader.next = reader.next.max(upto);
    }

    fn finish(&mut self, mut sessions: Vec<Session>) {
        for session in &mut sessions {
            while !session.waiting.is_empty() {
                self.now += 1;
                self.commit(session);
            }
            while !session.committed.is_empty() {
                self.now += 1;
                self.answer(session);
            }
        }
        self.now += 1;
        let mut last = self.reader();
        let (end, now) = (self.log.len() as u64, self.now);
        self.deliver(&mut last, end, now);
        self.records.push(Record {
            invoke: now,
            complete: now,
            offset: Some(end),
            ..Record::new(Kind::Final, last.process, self.partition)
        });
    }
}
