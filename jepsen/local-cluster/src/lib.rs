//! Real fleetline processes on one machine, under faults.
