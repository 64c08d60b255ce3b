//! The little of WASI that components may use: clocks and random numbers.
//!
//! Toolchains put a whole WASI below their standard library, so most components import parts of it that
//! they never call. `host.rs` defines these here and lets every other import trap when it is called:
//! there are no files, sockets, variables or streams, and no way to wait.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use wasmtime::bail;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::call::Call;
use crate::limits::RANDOM_BYTES_MAX;

/// `wasi:clocks/wall-clock.datetime`.
#[derive(Debug, Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl From<Duration> for Datetime {
    fn from(duration: Duration) -> Self {
        Self { seconds: duration.as_secs(), nanoseconds: duration.subsec_nanos() }
    }
}

/// Defines what there is. The linker takes other versions of 0.2 for the same.
pub(crate) fn add_to_linker(linker: &mut Linker<Call>) -> wasmtime::Result<()> {
    let mut clock = linker.instance("wasi:clocks/wall-clock@0.2.0")?;
    clock.func_wrap("now", |_, (): ()| Ok((Datetime::from(since_1970()),)))?;
    clock.func_wrap("resolution", |_, (): ()| Ok((Datetime::from(Duration::from_millis(1)),)))?;
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.0")?;
    clock.func_wrap("now", |_, (): ()| Ok((START.elapsed().as_nanos() as u64,)))?;
    clock.func_wrap("resolution", |_, (): ()| Ok((1_000_000u64,)))?;
    for name in ["wasi:random/random@0.2.0", "wasi:random/insecure@0.2.0"] {
        let [bytes, number] = match name.contains("insecure") {
            true => ["get-insecure-random-bytes", "get-insecure-random-u64"],
            false => ["get-random-bytes", "get-random-u64"],
        };
        let mut random = linker.instance(name)?;
        random.func_wrap(bytes, |_, (count,): (u64,)| Ok((random_bytes(count)?,)))?;
        random.func_wrap(number, |_, (): ()| Ok((random_u64()?,)))?;
    }
    let mut seed = linker.instance("wasi:random/insecure-seed@0.2.0")?;
    seed.func_wrap("insecure-seed", |_, (): ()| Ok(((random_u64()?, random_u64()?),)))
}

/// Where the monotonic clock begins.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn random_bytes(count: u64) -> wasmtime::Result<Vec<u8>> {
    if count > RANDOM_BYTES_MAX {
        bail!("the component wanted {count} random bytes, more than {RANDOM_BYTES_MAX}");
    }
    let mut bytes = vec![0; count as usize];
    fill(&mut bytes)?;
    Ok(bytes)
}

fn random_u64() -> wasmtime::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn fill(bytes: &mut [u8]) -> wasmtime::Result<()> {
    match SystemRandom::new().fill(bytes) {
        Ok(()) => Ok(()),
        Err(_) => bail!("the machine gives no random bytes"),
    }
}
