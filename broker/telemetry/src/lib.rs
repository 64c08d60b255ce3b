//! Metrics and logs of a process: set up once, at start.
//!
//! Metrics are recorded through the `metrics` facade by whoever measures; here is the recorder, and
//! the text that the operations port serves, with what each metric means (`definitions`). Log lines go
//! to standard error.
#![deny(missing_docs)]

pub mod definitions;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of this process.
    ///
    /// # Errors
    /// When one is installed already.
    pub fn install() -> Result<Metrics, String> {
        let handle = PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string())?;
        definitions::describe();
        Ok(Metrics { handle })
    }

    /// All metrics as Prometheus text.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up log lines on standard error: those that `level` (`info`, `warn,fleetline_node=debug`, …) lets
/// through.
///
/// # Errors
/// When the level can't be understood or log lines are set up already.
pub fn init_logs(level: &str, format: LogFormat) -> Result<(), String> {
    // The libraries' own chatter is of no use to operators at their info level.
    let directives = format!("openraft=warn,quinn=warn,rustls=warn,{level}");
    let filter = EnvFilter::try_new(&directives).map_err(|error| format!("log_level = {level}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    installed.map_err(|error| error.to_string())
}
