"""Each data set or made-up world with the stages that write its rows."""
