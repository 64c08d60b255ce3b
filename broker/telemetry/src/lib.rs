//! Metric definitions, logs, health.
