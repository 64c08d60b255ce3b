//! The little of WASI that components may use: clocks, random numbers, and output that becomes log lines.
//!
//! Toolchains put a whole WASI below their standard library, so most components import parts of it that
//! they never call. `host.rs` defines these here and lets every other import trap when it is called:
//! there are no files, sockets or variables, and no way to wait.

mod output;

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower};
use wasmtime::{StoreContextMut, bail};

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

/// Defines what there is of the imports with these names. The names are those of the component: it may be
/// made for any version 0.2, and the rest of each interface is defined under the same name.
pub(crate) fn add_to_linker<'a>(
    linker: &mut Linker<Call>,
    imports: impl Iterator<Item = &'a str>,
) -> wasmtime::Result<()> {
    for name in imports {
        let Some((interface, version)) = name.split_once('@') else { continue };
        if !version.starts_with("0.2.") {
            continue;
        }
        match interface {
            "wasi:clocks/wall-clock" => wall_clock(linker.instance(name)?)?,
            "wasi:clocks/monotonic-clock" => monotonic_clock(linker.instance(name)?)?,
            "wasi:random/random" => {
                random(linker.instance(name)?, "get-random-bytes", "get-random-u64")?;
            }
            "wasi:random/insecure" => {
                random(linker.instance(name)?, "get-insecure-random-bytes", "get-insecure-random-u64")?;
            }
            "wasi:random/insecure-seed" => {
                let seed = |_: StoreContextMut<'_, Call>, (): ()| Ok(((random_u64()?, random_u64()?),));
                linker.instance(name)?.func_wrap("insecure-seed", seed)?;
            }
            _ => output::add_to_linker(linker, interface, name)?,
        }
    }
    Ok(())
}

fn wall_clock(mut clock: LinkerInstance<'_, Call>) -> wasmtime::Result<()> {
    clock.func_wrap("now", |_, (): ()| Ok((Datetime::from(since_1970()),)))?;
    clock.func_wrap("resolution", |_, (): ()| Ok((Datetime::from(Duration::from_millis(1)),)))
}

fn monotonic_clock(mut clock: LinkerInstance<'_, Call>) -> wasmtime::Result<()> {
    clock.func_wrap("now", |_, (): ()| Ok((START.elapsed().as_nanos() as u64,)))?;
    clock.func_wrap("resolution", |_, (): ()| Ok((1u64,)))
}

fn random(mut random: LinkerInstance<'_, Call>, bytes: &str, number: &str) -> wasmtime::Result<()> {
    random.func_wrap(bytes, |_, (count,): (u64,)| Ok((random_bytes(count)?,)))?;
    random.func_wrap(number, |_, (): ()| Ok((random_u64()?,)))
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
