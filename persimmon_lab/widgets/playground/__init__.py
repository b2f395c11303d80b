"""The playground: write a prompt, watch the tokens come, and branch off wherever another would have done.

From a click to the picture: `token_view.js` tells the number of the token, `token_view` hears it and asks `widget`,
which lets `screen` describe it (`nucleus` says what the settings leave), and `token_view` sends the details back. A
click on one of those tokens goes the same way to `widget.take`, and from there to `session`, which branches the `tree`
and starts a `run` in a thread (`background`); as its tokens come, `screen` shows them.
"""
