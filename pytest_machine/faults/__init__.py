"""The faults that come with us, strangers to each other: each breaks one kind of thing and knows how it is undone."""
