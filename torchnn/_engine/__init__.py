"""What takes the steps of training: two engines, and the choice of one."""
