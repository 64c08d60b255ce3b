//! Standard output and error as lines of the function's log, and the rest of `wasi:cli` as nothing.
//!
//! Toolchains write panics and uncaught exceptions to standard error; without it a function that breaks
//! would say `unreachable` only. Nothing is read: there are no arguments, variables, folders or terminals.

use fleetline_worker::LogLevel;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource};
use wasmtime::{Result, StoreContextMut, bail};

use crate::call::Call;

/// `wasi:io/streams.output-stream`. Its handle is the number of the stream, as in Unix. The type has to be
/// `()`, as that of every resource which isn't defined: several interfaces have this one under their names.
type Stream = Resource<()>;

const STANDARD_INPUT: u32 = 0;
const STANDARD_OUTPUT: u32 = 1;
const STANDARD_ERROR: u32 = 2;
/// Bytes that a stream takes in one call, as it tells the component.
const WRITE_BYTES_MAX: u64 = 64 << 10;

/// `wasi:io/streams.stream-error`. Writing to the log never fails.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<()>),
    #[component(name = "closed")]
    Closed,
}

type Written = Result<(std::result::Result<(), StreamError>,)>;

/// Defines what there is of an interface with this name, which the component imports as `name`.
pub(super) fn add_to_linker(linker: &mut Linker<Call>, interface: &str, name: &str) -> Result<()> {
    match interface {
        "wasi:io/streams" => streams(linker.instance(name)?),
        // There to be asked for: it is, by whoever opens all three. Reading it traps.
        "wasi:cli/stdin" => standard(linker.instance(name)?, "get-stdin", STANDARD_INPUT),
        "wasi:cli/stdout" => standard(linker.instance(name)?, "get-stdout", STANDARD_OUTPUT),
        "wasi:cli/stderr" => standard(linker.instance(name)?, "get-stderr", STANDARD_ERROR),
        "wasi:cli/terminal-stdin" => no_terminal(linker.instance(name)?, "get-terminal-stdin"),
        "wasi:cli/terminal-stdout" => no_terminal(linker.instance(name)?, "get-terminal-stdout"),
        "wasi:cli/terminal-stderr" => no_terminal(linker.instance(name)?, "get-terminal-stderr"),
        "wasi:cli/environment" => environment(linker.instance(name)?),
        "wasi:cli/exit" => exit(linker.instance(name)?),
        "wasi:filesystem/preopens" => no_folders(linker.instance(name)?),
        _ => Ok(()),
    }
}

fn streams(mut streams: LinkerInstance<'_, Call>) -> Result<()> {
    let room = |_: StoreContextMut<'_, Call>, (_,): (Stream,)| Ok((Ok::<_, StreamError>(WRITE_BYTES_MAX),));
    streams.func_wrap("[method]output-stream.check-write", room)?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{name}"), write)?;
    }
    for name in ["flush", "blocking-flush"] {
        let flush = |_: StoreContextMut<'_, Call>, (_,): (Stream,)| Written::Ok((Ok(()),));
        streams.func_wrap(&format!("[method]output-stream.{name}"), flush)?;
    }
    Ok(())
}

fn write(mut store: StoreContextMut<'_, Call>, (stream, bytes): (Stream, Vec<u8>)) -> Written {
    let level = if stream.rep() == STANDARD_ERROR { LogLevel::Error } else { LogLevel::Information };
    store.data_mut().log.write_bytes(level, &bytes);
    Ok((Ok(()),))
}

fn standard(mut instance: LinkerInstance<'_, Call>, name: &str, stream: u32) -> Result<()> {
    instance.func_wrap(name, move |_, (): ()| Ok((Stream::new_own(stream),)))
}

fn no_terminal(mut instance: LinkerInstance<'_, Call>, name: &str) -> Result<()> {
    instance.func_wrap(name, |_, (): ()| Ok((None::<Resource<()>>,)))
}

fn environment(mut instance: LinkerInstance<'_, Call>) -> Result<()> {
    instance.func_wrap("get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    instance.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    instance.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))
}

fn exit(mut instance: LinkerInstance<'_, Call>) -> Result<()> {
    instance.func_wrap("exit", |_, (status,): (std::result::Result<(), ()>,)| -> Result<()> {
        bail!("the component exited with {}", if status.is_ok() { "success" } else { "failure" })
    })
}

fn no_folders(mut instance: LinkerInstance<'_, Call>) -> Result<()> {
    instance.func_wrap("get-directories", |_, (): ()| Ok((Vec::<(Resource<()>, String)>::new(),)))
}
