//! The tier over pipes in memory: clients, backends, nodes.

mod bridges;
mod client;
mod events;
mod nodes;
mod polling;
mod rest;
mod resuming;
mod sockets;
mod web;
mod world;
