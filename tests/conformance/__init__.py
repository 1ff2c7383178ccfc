"""What every transport must do, written once and run against each."""
