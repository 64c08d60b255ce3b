//! Members, placement and settings: the replicated state of the control group.
