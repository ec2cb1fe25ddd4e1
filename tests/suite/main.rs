//! The contract, tested through the real server on a real socket: one module for each RPC, for the
//! errors, and for each promise that one call cannot show. One binary, so that it is linked once.

// A test's tasks end with its runtime, and what they queue is bounded by what the test sends.
#![allow(clippy::disallowed_methods)]
// What a test says is shown when it fails.
#![allow(clippy::print_stdout)]

mod contract;
#[cfg(target_os = "linux")]
mod h2_frames;
mod raw;
mod support;
#[cfg(target_os = "linux")]
mod victim;
mod web;

mod accounts;
mod accounts_admin;
mod accounts_races;
mod accounts_support;
mod acknowledge;
mod admin_socket;
mod auth;
mod bench;
mod chat;
mod chat_terminal;
mod cli;
mod cli_admin;
mod cli_follow;
mod cli_send;
mod cli_shell;
mod cli_support;
mod client;
mod client_follow;
mod client_refusing;
mod client_send_all;
mod client_support;
mod clocks;
mod concurrency;
mod config;
mod cors;
mod damage;
mod errors;
mod expiry;
mod faults;
mod flipped_bits;
mod flipped_bits_reading;
mod folder;
mod get_messages;
mod get_user;
mod grpc_web;
mod harness;
mod hostile_fields;
mod hostile_rows;
mod hostile_tokens;
mod http1;
#[cfg(target_os = "linux")]
mod http2_abuse;
mod http_ancestor;
mod http_events;
mod http_problems;
mod http_support;
mod http_v1;
mod import_flask;
mod injected;
mod kill;
mod lag;
mod limits;
mod list_users;
mod listen;
mod litestream;
mod memory_limit;
mod metrics;
mod model;
mod model_grpc;
mod model_operations;
mod model_reference;
mod model_store;
mod open;
mod presence;
mod reflection_health;
mod register;
mod registration;
mod restart;
mod restored;
mod retention;
mod send_message;
mod send_messages;
mod shutdown;
mod simulated_service;
mod simulation;
mod start_errors;
mod subscribe;
mod tls;
mod tls_clients;
mod tls_expiry;
mod tls_support;
mod top;
mod torture;
#[cfg(feature = "otel")]
mod traces;
mod upgrade;
mod user_limits;
mod version;
