//! Node-to-node messages and their version ladder.
