"""Many pipes: where their state is kept, who runs which, and how to ask a running one."""
