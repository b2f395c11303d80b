"""Figures that are HTML: tokens, trees and tables, of which everything is escaped."""
