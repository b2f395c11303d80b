"""The playground: write a prompt, watch the tokens come, and branch off wherever another would have done."""
