//! How a command finds its cluster.

use std::path::PathBuf;

use clap::Args;
use fleetline_client::{Client, ClientOptions};

use crate::CliError;

/// Where the certificates and addresses of the cluster are.
#[derive(Args, Clone, Debug)]
pub struct ContextArgs {
    /// Folder with `endpoints`, `authority.pem`, `client.pem` and `client.key`. A node writes one to
    /// `client/` in its data folder; copy it to use the cluster from another machine.
    #[arg(
        long,
        global = true,
        env = "FLEETLINE_CONTEXT",
        default_value = "./fleetline-data/client",
        value_name = "DIR"
    )]
    pub context: PathBuf,
}

impl ContextArgs {
    pub(crate) async fn connect(&self) -> Result<Client, CliError> {
        let options = ClientOptions::from_context(&self.context).map_err(|error| {
            CliError::Failed(format!(
                "{error}\nhint: start a node with `fleetline serve`, or name its client folder with --context"
            ))
        })?;
        let endpoints = options.endpoints.join(", ");
        Client::connect(options).await.map_err(|error| {
            CliError::Failed(format!(
                "{error}\nhint: is a node running at {endpoints}? see `fleetline serve --help`"
            ))
        })
    }
}
