//! The `fleetline` binary: a node of the cluster, and the tool that speaks to it.
//!
//! Small on purpose: flags become a configuration and a call into `broker/node` or `client/cli`.
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the outcome is unknown.

mod demo;
mod develop;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fleetline_cli::{CliError, ClusterCommand, ContextArgs, HubCommand, StreamCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fleetline: a self-hosted IoT hub.
///
/// Begin with `fleetline serve`: on an empty folder it makes a cluster of one node, with certificates for you.
/// Then, in another terminal, `echo 21.5 | fleetline stream produce --key thermostat-7` and
/// `fleetline stream consume`. `fleetline functions deploy FOLDER` runs code on what arrives, and `fleetline
/// console` shows all of it. For three nodes: `fleetline cluster token`, and `fleetline serve --join TOKEN`
/// with another --data and other ports.
#[derive(Parser)]
#[command(version, about, long_about, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    context: ContextArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node.
    ///
    /// Example: `fleetline serve --data ./n1`. Certificates, and a folder with what clients need
    /// (DIR/client), are made on first start. SIGTERM or Ctrl-C stops it in good order: leadership is
    /// handed over first.
    Serve(serve::ServeArgs),
    /// Asks a running cluster about nodes and partitions, and changes where they are.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Writes and reads records.
    #[command(subcommand)]
    Stream(StreamCommand),
    #[command(flatten)]
    Hub(HubCommand),
    /// Runs one node, real flights as its devices, two functions, and a live page.
    Demo(demo::DemoArgs),
}

/// Commands on the hub are a client's, but for the one that runs a node.
async fn hub(context: &ContextArgs, command: HubCommand) -> Result<(), CliError> {
    match &command {
        HubCommand::Functions(args) => match args.start() {
            Some(args) => develop::run(args).await,
            None => fleetline_cli::hub(context, command).await,
        },
        _ => fleetline_cli::hub(context, command).await,
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before anything else uses TLS: the provider is chosen here, not by a dependency's features.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider was installed twice");
        return ExitCode::from(1);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime can't be started: {error}");
            return ExitCode::from(1);
        }
    };
    let done: Result<(), CliError> = runtime.block_on(async {
        match arguments.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Cluster(command) => fleetline_cli::cluster(&arguments.context, command).await,
            Command::Stream(command) => fleetline_cli::stream(&arguments.context, command).await,
            Command::Hub(command) => hub(&arguments.context, command).await,
            Command::Demo(args) => demo::run(args).await,
        }
    });
    // Reads of standard input may still block a thread: they must not hold up the end.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
