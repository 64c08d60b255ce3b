//! The engine of a node: settings, compiling, the cache, and who may run.
//!
//! A node makes one [`WasmHost`] and gives it to its [`WasmKind`](crate::WasmKind); apps come and go,
//! the host stays. Compiling and running happen on blocking threads. Memories of instances come from a
//! pool that is reserved at start (address space only), with the component's first pages mapped copy on
//! write, so an instance costs microseconds.
//!
//! Invariants:
//! 1. At most `running_max` invocations run, and `waiting_max` wait. One component is compiled at a time.
//! 2. What runs is looked at every [`TICK`](crate::ticker::TICK), thus can be stopped.
//!
//! Not here: what a batch is (`batch.rs`), what effects become (`effects.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::{Cache, CacheKey, load};
use crate::call::Call;
use crate::error::WasmError;
use crate::limits::{
    COMPONENT_BYTES_MAX, KEPT_RESIDENT_BYTES, MEMORIES_MAX, MODULES_MAX, STACK_BYTES_MAX, TABLE_ELEMENTS_MAX,
    TABLES_MAX,
};
use crate::options::WasmOptions;
use crate::ticker::{Ticker, Ticking};
use crate::wasi;
use crate::wit::{Function, FunctionPre};

/// Bytes of a page of WASM memory.
const PAGE_BYTES: usize = 64 << 10;
/// Largest memory that an instance can have: what is reserved for each.
const MEMORY_RESERVED: usize = 4 << 30;

/// A component that is ready to be instantiated.
pub(crate) type Prepared = Arc<FunctionPre<Call>>;

/// The engine that runs all components of a node.
pub struct WasmHost {
    engine: Engine,
    linker: Linker<Call>,
    ticker: Ticker,
    cache: Option<Cache>,
    options: WasmOptions,
    /// Places for those who run or wait to run.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    compiling: parking_lot::Mutex<()>,
}

impl std::fmt::Debug for WasmHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmHost").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How a component came to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was compiled now.
    Compiled,
    /// Its machine code lay in the cache.
    Cached,
}

impl WasmHost {
    /// Starts the engine.
    ///
    /// # Errors
    /// When an option is out of its range or this machine can't run the engine. A cache that can't be
    /// used is left out, with a line in the log.
    pub fn new(mut options: WasmOptions) -> Result<Arc<Self>, WasmError> {
        check(&options)?;
        options.memory_bytes_max = options.memory_bytes_max.next_multiple_of(PAGE_BYTES);
        let engine = Engine::new(&config(&options)).map_err(engine_error)?;
        let mut linker = Linker::new(&engine);
        Function::add_to_linker::<_, wasmtime::component::HasSelf<Call>>(&mut linker, |call| call)
            .map_err(engine_error)?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| WasmError::Engine(error.to_string()))?;
        let cache = options.cache.as_deref().and_then(|folder| match Cache::open(folder) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(%error, "compiled components won't be kept");
                None
            }
        });
        Ok(Arc::new(Self {
            engine,
            linker,
            ticker,
            cache,
            admitted: Arc::new(Semaphore::new(options.running_max + options.waiting_max)),
            running: Arc::new(Semaphore::new(options.running_max)),
            compiling: parking_lot::Mutex::new(()),
            options,
        }))
    }

    /// What the host was started with.
    #[must_use]
    pub fn options(&self) -> &WasmOptions {
        &self.options
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn tick(&self) -> Ticking {
        self.ticker.run()
    }

    /// Makes a component ready, from the cache or by compiling it, which takes seconds for large ones.
    /// For blocking threads.
    pub(crate) fn prepare(&self, bytes: &[u8]) -> Result<(Prepared, Origin), WasmError> {
        if bytes.len() as u64 > COMPONENT_BYTES_MAX {
            return Err(WasmError::Compile(format!("{} bytes are too many", bytes.len())));
        }
        // One at a time: compiling takes a core and many times the component's size in memory.
        let _turn = self.compiling.lock();
        let key = CacheKey::new(&self.engine, bytes);
        if let Some(component) = self.cached(&key) {
            return Ok((self.link(&component)?, Origin::Cached));
        }
        let compile_error = |error: wasmtime::Error| WasmError::Compile(format!("{error:#}"));
        let component = Component::from_binary(&self.engine, bytes).map_err(compile_error)?;
        let ready = self.link(&component)?;
        if let Some(cache) = &self.cache {
            cache.write(&key, &component.serialize().map_err(compile_error)?);
        }
        Ok((ready, Origin::Compiled))
    }

    fn cached(&self, key: &CacheKey) -> Option<Component> {
        let code = self.cache.as_ref()?.read(key)?;
        match load::load(&self.engine, &code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, "a compiled component can't be loaded");
                None
            }
        }
    }

    fn link(&self, component: &Component) -> Result<Prepared, WasmError> {
        let world = |error: wasmtime::Error| WasmError::World(format!("{error:#}"));
        let mut linker = self.linker.clone();
        let ty = component.component_type();
        wasi::add_to_linker(&mut linker, ty.imports(&self.engine).map(|(name, _)| name)).map_err(world)?;
        linker.define_unknown_imports_as_traps(component).map_err(world)?;
        let ready = linker.instantiate_pre(component).map_err(world)?;
        Ok(Arc::new(FunctionPre::new(ready).map_err(world)?))
    }

    /// A place to run, waited for at most `patience`. `Err` says why there is none.
    pub(crate) async fn admit(&self, patience: Duration) -> Result<Permit, String> {
        let Ok(place) = self.admitted.clone().try_acquire_owned() else {
            return Err(format!("{} invocations wait already", self.options.waiting_max));
        };
        match tokio::time::timeout(patience, self.running.clone().acquire_owned()).await {
            Ok(Ok(running)) => Ok(Permit { _place: place, _running: running }),
            Ok(Err(_)) | Err(_) => Err(format!("no thread was free within {patience:?}")),
        }
    }
}

/// Allows one invocation to run.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

fn engine_error(error: wasmtime::Error) -> WasmError {
    WasmError::Engine(format!("{error:#}"))
}

fn check(options: &WasmOptions) -> Result<(), WasmError> {
    let within = |option, found: usize, least: usize, most: usize| match (least..=most).contains(&found) {
        true => Ok(()),
        false => Err(WasmError::Option { option, found }),
    };
    within("memory_bytes_max", options.memory_bytes_max, PAGE_BYTES, MEMORY_RESERVED)?;
    // Each reserves 8 GiB of the 128 TiB of addresses; one thread each too.
    within("running_max", options.running_max, 1, 1024)?;
    within("waiting_max", options.waiting_max, 0, 1 << 20)
}

fn config(options: &WasmOptions) -> Config {
    let running = options.running_max as u32;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(running)
        .total_core_instances(running * MODULES_MAX)
        .total_memories(running * MEMORIES_MAX)
        .total_tables(running * TABLES_MAX)
        .max_core_instances_per_component(MODULES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(options.memory_bytes_max)
        .max_unused_warm_slots(running)
        .linear_memory_keep_resident(KEPT_RESIDENT_BYTES)
        // Kernels that can't say which pages were written have all of them unmapped instead.
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(PAGE_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MEMORY_RESERVED as u64)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .wasm_component_model(true);
    config
}
