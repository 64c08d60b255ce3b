//! The command-line tool: one file per noun.
//!
//! Everything here is a client of a running cluster. Standard output is for results, standard error for
//! progress and hints. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the outcome is unknown.
//!
//! Not here: `serve`, `demo` and `functions start`, which run a node (`broker/server`).

/// Prints a line of a result. Whoever read standard output may have gone (`… | head`): that is no failure.
macro_rules! say {
    ($($text:tt)*) => {
        drop(std::io::Write::write_all(&mut std::io::stdout(), format!("{}\n", format_args!($($text)*)).as_bytes()))
    };
}

mod cluster;
mod console;
mod context;
mod device;
mod error;
#[cfg(test)]
mod fake;
mod functions;
mod groups;
mod hub;
mod realtime;
mod refusal;
mod rest;
mod stream;
mod time;

use clap::Subcommand;

pub use cluster::ClusterCommand;
pub use console::{ConsoleAddresses, ConsoleArgs, addresses as console_addresses};
pub use context::ContextArgs;
pub use device::{
    Ack, ConnectionStringArgs, CreateArgs, DeviceArgs, DeviceCommand, InvokeArgs, ListArgs, ModulesCommand,
    MonitorArgs, SendArgs, SimulateArgs, TwinArgs, UpdateArgs,
};
pub use error::CliError;
pub use functions::{
    DeployArgs, Deployed, FunctionOf, FunctionsArgs, FunctionsCommand, KeysArgs, LogsArgs, SettingsArgs,
    StartArgs, deploy, name_of as app_name_of,
};
pub use hub::{Hub, HubArgs};
pub use realtime::{RealtimeArgs, RealtimeCommand};
pub use rest::{Call, Reply, Rest};
pub use stream::StreamCommand;

/// Commands on the hub, its devices, its functions.
#[derive(Subcommand, Debug)]
pub enum HubCommand {
    /// Makes, shows and changes devices, talks to them, and watches what they send.
    Device(DeviceArgs),
    /// Prints a connection string: of a policy, a device or a module.
    ConnectionString(ConnectionStringArgs),
    /// Deploys function apps, and looks after them.
    Functions(FunctionsArgs),
    /// Says how to reach the realtime hubs.
    Realtime(RealtimeArgs),
    /// Prints the address of the operator's page, signed in.
    Console(ConsoleArgs),
}

/// Runs a `cluster` command.
///
/// # Errors
/// What failed, and what to do next.
pub async fn cluster(context: &ContextArgs, command: ClusterCommand) -> Result<(), CliError> {
    cluster::run(context, command).await
}

/// Runs a `stream` command.
///
/// # Errors
/// What failed, and what to do next.
pub async fn stream(context: &ContextArgs, command: StreamCommand) -> Result<(), CliError> {
    stream::run(context, command).await
}

/// Runs a command on the hub and its devices.
///
/// # Errors
/// What failed, and what to do next.
pub async fn hub(context: &ContextArgs, command: HubCommand) -> Result<(), CliError> {
    match command {
        HubCommand::Device(args) => device::run(context, args).await,
        HubCommand::ConnectionString(args) => {
            say!("{}", device::connection_string(context, &args).await?);
            Ok(())
        }
        HubCommand::Functions(args) => functions::run(context, args).await,
        HubCommand::Realtime(args) => realtime::run(context, &args),
        HubCommand::Console(args) => console::run(context, &args),
    }
}
