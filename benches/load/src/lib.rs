//! Open-loop load generator and the peers it is measured beside.
