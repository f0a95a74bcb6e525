"""The data doctor: what a data set's files do not say by being unreadable, but that costs a training its worth."""
